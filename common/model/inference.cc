#include "common/model/inference.h"

#include <algorithm>
#include <utility>

#include "ATen/Parallel.h"
#include "ATen/ops/scaled_dot_product_attention.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/model/cpu_decoder.h"
#include "common/model/cpu_kernels.h"
#include "common/model/model.h"
#include "common/model/model_folder.h"
#include "common/model/packed_score.h"
#include "common/model/self_test.h"
#include "common/model/torch_status.h"
#include "common/model/weights_io.h"

namespace atod::model {
namespace {

// Tokens that run through all layers together, at most and at least.
constexpr int64_t kMostChunkTokens = 160;
constexpr int64_t kLeastChunkTokens = 16;

class CpuInference : public InferenceModel {
 public:
  CpuInference(Qwen3 model, int max_slots, int64_t max_context)
      : model_(std::move(model)),
        max_context_(max_context),
        decoder_(MakeCpuDecoder(model_, max_context, false)),
        slots_(max_slots) {}

  const ModelConfig& config() const override { return decoder_->config(); }
  int64_t max_context() const override { return max_context_; }

  absl::Status Reserve(int slot, int64_t tokens) override {
    Slot& s = slots_[slot];
    if (s.capacity >= tokens) return absl::OkStatus();
    s.capacity = PadToPanel(tokens);
    s.data.clear();  // nothing worth copying
    s.data.resize(config().num_hidden_layers *
                  decoder_->KvLayerFloats(s.capacity));
    return absl::OkStatus();
  }

  absl::Status Extend(const std::vector<SlotTokens>& inputs,
                      float* logits) override {
    int64_t total = 0;
    for (const SlotTokens& input : inputs) total += input.tokens.size();
    const int64_t most = std::clamp(at::divup(total, at::get_num_threads()),
                                    kLeastChunkTokens, kMostChunkTokens);
    std::vector<size_t> begin;  // of the chunks, and the end
    int64_t in_chunk = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const int64_t n = inputs[i].tokens.size();
      if (i == 0 || in_chunk + n > most) {
        begin.push_back(i);
        in_chunk = 0;
      }
      in_chunk += n;
    }
    begin.push_back(inputs.size());
    const int64_t width = config().hidden_size;
    at::parallel_for(0, begin.size() - 1, 1, [&](int64_t first, int64_t last) {
      thread_local FloatBuffer workspace;
      FloatBuffer hidden;
      for (int64_t c = first; c < last; ++c) {
        std::vector<CpuSegment> segments;
        for (size_t i = begin[c]; i < begin[c + 1]; ++i) {
          const SlotTokens& in = inputs[i];
          Slot& slot = slots_[in.slot];
          const int32_t n = static_cast<int32_t>(in.tokens.size());
          segments.push_back({in.tokens.data(),
                              n,
                              in.position,
                              {n - 1},
                              {slot.data.data(), slot.capacity,
                               decoder_->KvLayerFloats(slot.capacity)}});
        }
        hidden.resize(segments.size() * width);
        decoder_->Forward(segments, workspace, nullptr, hidden.data());
        decoder_->Logits(segments.size(), hidden.data(),
                         logits + begin[c] * config().vocab_size);
      }
    });
    return absl::OkStatus();
  }

  absl::Status Install(const weights::WeightSnapshot& snapshot) override {
    ATOD_RETURN_IF_ERROR(ImportWeights(model_, snapshot));
    decoder_ = MakeCpuDecoder(model_, max_context_, false);
    return absl::OkStatus();
  }

 private:
  struct Slot {
    int64_t capacity = 0;
    FloatBuffer data;
  };

  Qwen3 model_;
  const int64_t max_context_;
  std::shared_ptr<const CpuDecoder> decoder_;
  std::vector<Slot> slots_;
};

class TorchInference : public InferenceModel {
 public:
  TorchInference(Qwen3 model, int max_slots, int64_t max_context)
      : model_(std::move(model)),
        max_slots_(max_slots),
        max_context_(max_context),
        keys_(model_->config().num_hidden_layers),
        values_(model_->config().num_hidden_layers) {}

  const ModelConfig& config() const override { return model_->config(); }
  int64_t max_context() const override { return max_context_; }

  absl::Status Reserve(int, int64_t tokens) override {
    if (tokens <= capacity_) return absl::OkStatus();
    return CatchTorch("KV cache", [&]() -> absl::Status {
      torch::NoGradGuard no_grad;
      // Doubling: all slots are copied.
      const int64_t held = capacity_;
      capacity_ = std::min(std::max(tokens, 2 * held), max_context_);
      const torch::Tensor like = model_->parameters()[0];
      for (auto* cache : {&keys_, &values_}) {
        for (torch::Tensor& layer : *cache) {
          torch::Tensor larger =
              torch::zeros({max_slots_, capacity_, config().num_key_value_heads,
                            config().head_dim},
                           like.options().requires_grad(false));
          if (held > 0) larger.narrow(1, 0, held).copy_(layer);
          layer = larger;
        }
      }
      return absl::OkStatus();
    });
  }

  absl::Status Extend(const std::vector<SlotTokens>& inputs,
                      float* logits) override {
    return CatchTorch("forward", [&]() -> absl::Status {
      torch::NoGradGuard no_grad;
      const torch::Device device = model_->parameters()[0].device();
      const auto on_device = [&](const std::vector<int64_t>& v) {
        return torch::tensor(v, torch::kInt64).to(device);
      };
      std::vector<int64_t> tokens, positions, slots, last;
      for (const SlotTokens& in : inputs) {
        for (size_t i = 0; i < in.tokens.size(); ++i) {
          tokens.push_back(in.tokens[i]);
          positions.push_back(in.position + static_cast<int64_t>(i));
          slots.push_back(in.slot);
        }
        last.push_back(static_cast<int64_t>(tokens.size()) - 1);
      }
      const torch::Tensor slot_rows = on_device(slots);
      const torch::Tensor position_rows = on_device(positions);
      // Decoded tokens and prompts are padded apart.
      const Group groups[] = {MakeGroup(inputs, device, true),
                              MakeGroup(inputs, device, false)};
      const torch::Tensor hidden = model_->Run(
          torch::tensor(tokens, torch::kInt64), positions,
          [&](int64_t layer, const torch::Tensor& q, const torch::Tensor& k,
              const torch::Tensor& v) {
            keys_[layer].index_put_({slot_rows, position_rows}, k);
            values_[layer].index_put_({slot_rows, position_rows}, v);
            torch::Tensor out = torch::empty_like(q);
            for (const Group& g : groups)
              if (g.count > 0) Attend(layer, g, q, out);
            return out.flatten(1);
          });
      const torch::Tensor result =
          model_->Logits(hidden.index_select(0, on_device(last)))
              .to(torch::kCPU)
              .contiguous();
      std::copy_n(result.data_ptr<float>(), result.numel(), logits);
      return absl::OkStatus();
    });
  }

  absl::Status Install(const weights::WeightSnapshot& snapshot) override {
    return ImportWeights(model_, snapshot);
  }

 private:
  // Inputs padded to one attention call.
  struct Group {
    int64_t count = 0, padded = 0, keys = 0;
    torch::Tensor rows;    // int64 [count * padded]: row of q, 0 for padding
    torch::Tensor places;  // int64 [real rows]: their index in `rows`
    torch::Tensor real;    // int64 [real rows]: their row of q
    torch::Tensor slots;   // int64 [count]
    torch::Tensor mask;    // bool [count, 1, padded, keys]: may be seen
  };

  Group MakeGroup(const std::vector<SlotTokens>& inputs, torch::Device device,
                  bool single) const {
    Group g;
    const auto belongs = [&](const SlotTokens& in) {
      return (in.tokens.size() == 1) == single;
    };
    for (const SlotTokens& in : inputs) {
      if (!belongs(in)) continue;
      const int64_t n = static_cast<int64_t>(in.tokens.size());
      ++g.count;
      g.padded = std::max(g.padded, n);
      g.keys = std::max(g.keys, in.position + n);
    }
    if (g.count == 0) return g;
    std::vector<int64_t> rows(g.count * g.padded), places, real, slots, seen;
    int64_t row = 0;
    for (const SlotTokens& in : inputs) {
      const int64_t n = static_cast<int64_t>(in.tokens.size());
      if (belongs(in)) {
        for (int64_t i = 0; i < g.padded; ++i) {
          const int64_t place =
              static_cast<int64_t>(slots.size()) * g.padded + i;
          // Padding sees what the last token sees.
          seen.push_back(in.position + std::min(i, n - 1) + 1);
          if (i >= n) continue;
          rows[place] = row + i;
          places.push_back(place);
          real.push_back(row + i);
        }
        slots.push_back(in.slot);
      }
      row += n;
    }
    const auto on_device = [&](const std::vector<int64_t>& v) {
      return torch::tensor(v, torch::kInt64).to(device);
    };
    g.rows = on_device(rows);
    g.places = on_device(places);
    g.real = on_device(real);
    g.slots = on_device(slots);
    g.mask = (torch::arange(g.keys, torch::kInt64).to(device).unsqueeze(0) <
              on_device(seen).unsqueeze(1))
                 .view({g.count, 1, g.padded, g.keys});
    return g;
  }

  // Writes the attention output of the group's rows to `out`, like q
  // [num_tokens, heads, head_dim].
  void Attend(int64_t layer, const Group& g, const torch::Tensor& q,
              torch::Tensor& out) const {
    const ModelConfig& c = config();
    const int64_t group = c.num_attention_heads / c.num_key_value_heads;
    const torch::Tensor padded_q =
        q.index_select(0, g.rows)
            .view({g.count, g.padded, c.num_attention_heads, c.head_dim})
            .transpose(1, 2);
    const auto cached = [&](const torch::Tensor& cache) {
      torch::Tensor t = cache.narrow(1, 0, g.keys).index_select(0, g.slots);
      if (group > 1) t = t.repeat_interleave(group, 2);
      return t.transpose(1, 2);
    };
    const torch::Tensor attended =
        at::scaled_dot_product_attention(padded_q, cached(keys_[layer]),
                                         cached(values_[layer]), g.mask)
            .transpose(1, 2)
            .reshape({g.count * g.padded, c.num_attention_heads, c.head_dim});
    out.index_copy_(0, g.real, attended.index_select(0, g.places));
  }

  Qwen3 model_;
  const int64_t max_slots_, max_context_;
  int64_t capacity_ = 0;
  std::vector<torch::Tensor> keys_, values_;  // per layer [slots, capacity,
                                              // kv heads, head_dim]
};

}  // namespace

absl::StatusOr<std::unique_ptr<InferenceModel>> OpenInference(
    const std::string& dir, const InferenceOptions& options) {
  ATOD_RETURN_IF_ERROR(CheckDevice(options.device));
  ATOD_ASSIGN_OR_RETURN(Qwen3 model, LoadModel(dir, options.dtype));
  return CatchTorch(
      dir, [&]() -> absl::StatusOr<std::unique_ptr<InferenceModel>> {
        torch::NoGradGuard no_grad;
        const int64_t max_context =
            options.max_context > 0 ? options.max_context
                                    : model->config().max_position_embeddings;
        ATOD_RETURN_IF_ERROR(CheckPositions(model->config(), dir, max_context));
        model->to(torch::Device(options.device));
        ATOD_RETURN_IF_ERROR(UseKernels(model, options.deterministic));
        if (CanScoreOnCpu(model))
          return std::make_unique<CpuInference>(model, options.max_slots,
                                                max_context);
        return std::make_unique<TorchInference>(model, options.max_slots,
                                                max_context);
      });
}

}  // namespace atod::model
