#include "common/model/torch/torch_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "ATen/Context.h"
#include "ATen/ops/embedding.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/model/arena_model.h"
#include "common/model/shared_prefix.h"
#include "common/model/torch/attention.h"
#include "common/model/torch/blocks.h"
#include "common/model/torch/head.h"
#include "common/model/torch/sampler.h"
#include "common/model/torch_status.h"
#include "torch/csrc/autograd/autograd.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

torch::Tensor Ids(const std::vector<int64_t>& x, torch::Device device) {
  return torch::tensor(x, torch::kInt64).to(device);
}

// The one place where numbers come to the host.
template <typename T>
std::vector<T> ToHost(const torch::Tensor& x, torch::Dtype dtype) {
  const torch::Tensor host =
      x.detach().to(torch::kCPU, dtype).contiguous().flatten();
  std::vector<T> out(host.numel());
  std::memcpy(out.data(), host.data_ptr(), out.size() * sizeof(T));
  return out;
}

// Rows of a forward pass over packed sequences.
struct PackedBatch {
  std::vector<int64_t> tokens, positions;
  std::vector<AttentionSegment> segments;
  std::vector<int64_t> rows,
      targets;  // whose prediction is scored, and of what

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  // Appends tokens [begin, end) of a sequence.
  AttentionSegment& Add(absl::Span<const int32_t> sequence, int64_t begin,
                        int64_t end) {
    AttentionSegment& s = segments.emplace_back();
    s.row = size();
    s.rows = end - begin;
    s.position = begin;
    for (int64_t i = begin; i < end; ++i) {
      tokens.push_back(sequence[i]);
      positions.push_back(i);
    }
    return s;
  }
  void AddScored(const ScoredSequence& sequence, const AttentionSegment& s) {
    for (const TokenSpan& span : sequence.spans) {
      for (uint32_t i = span.begin; i < span.begin + span.length; ++i) {
        rows.push_back(s.row + static_cast<int64_t>(i) - 1 - s.position);
        targets.push_back(sequence.tokens.at(i));
      }
    }
  }
};

// Prefixes that several sequences share come first, once each.
PackedBatch PackScored(absl::Span<const ScoredSequence> batch, bool share) {
  PackedBatch out;
  std::vector<std::pair<int64_t, int64_t>> prefix(batch.size());  // row, tokens
  if (share) {
    for (const SharedPrefix& p : FindSharedPrefixes(batch)) {
      const AttentionSegment& s =
          out.Add(batch[p.members[0]].tokens, 0, p.tokens);
      for (const int32_t m : p.members) prefix[m] = {s.row, p.tokens};
    }
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    const ScoredSequence& sequence = batch[i];
    int64_t end = static_cast<int64_t>(sequence.tokens.size());
    // Nothing after the last scored token matters, unless its keys are wanted.
    if (sequence.region.rows == 0)
      end = sequence.spans.empty() ? 0
                                   : sequence.spans.back().begin +
                                         sequence.spans.back().length - 1;
    const int64_t begin = std::max(sequence.cached, prefix[i].second);
    if (begin >= end) continue;
    AttentionSegment& s = out.Add(sequence.tokens, begin, end);
    s.parent = prefix[i].first;
    s.region = sequence.region;
    out.AddScored(sequence, s);
  }
  return out;
}

absl::Status CheckFinite(const std::vector<float>& x) {
  for (const float v : x)
    if (!std::isfinite(v))
      return absl::FailedPreconditionError(absl::StrCat(
          "logprobs: found ", v,
          ", expected finite numbers: the model's weights are so large that "
          "its logits overflow"));
  return absl::OkStatus();
}

BackEnd Describe(const ParameterArena& arena) {
  const torch::Device device = arena.values.device();
  return {"torch", device.is_cpu() ? "cpu" : device.str(),
          DtypeName(arena.values.scalar_type())};
}

class TorchModel final : public ArenaModel {
 public:
  TorchModel(ModelWeights weights, int64_t max_context, BackEnd back_end)
      : ArenaModel(std::move(weights), max_context, std::move(back_end)),
        device_(arena().values.device()),
        dtype_(arena().values.scalar_type()),
        trains_(arena().gradients.defined()),
        weights_(config(), arena()),
        rope_(config(), max_context, dtype_, device_) {
    // cuDNN's attention plans are kept for every shape, without bound.
    if (!device_.is_cpu()) at::globalContext().setSDPUseCuDNN(false);
  }

  absl::StatusOr<ScoreOutput> Score(absl::Span<const ScoredSequence> batch,
                                    const ScoreOptions& options) override {
    return CatchTorch("score", [&]() -> absl::StatusOr<ScoreOutput> {
      torch::NoGradGuard no_grad;
      Pack();
      const PackedBatch packed = PackScored(batch, true);
      const HeadOutput head =
          Head(packed, Hidden(packed, Embed(packed)), options);
      ScoreOutput out = OutputOf(head);
      ATOD_RETURN_IF_ERROR(CheckFinite(out.logprobs));
      return out;
    });
  }

  absl::StatusOr<ScoreOutput> ScoreForBackward(
      absl::Span<const ScoredSequence> batch,
      const ScoreOptions& options) override {
    return CatchTorch("score", [&]() -> absl::StatusOr<ScoreOutput> {
      kept_.reset();
      torch::AutoGradMode with_gradients(true);
      Kept kept;
      // The trainer's sequences share next to nothing, and one graph each way.
      kept.packed = PackScored(batch, false);
      {
        torch::NoGradGuard no_grad;
        kept.embedded = Embed(kept.packed);
      }
      kept.embedded.requires_grad_(true);
      kept.head =
          Head(kept.packed, Hidden(kept.packed, kept.embedded), options);
      ScoreOutput out = OutputOf(kept.head);
      kept_ = std::move(kept);
      return out;
    });
  }

  absl::Status Backward(absl::Span<const float> d_logprobs,
                        absl::Span<const float> d_entropy) override {
    if (!kept_.has_value() ||
        static_cast<int64_t>(d_logprobs.size()) != kept_->head.logprobs.size(0))
      return absl::InternalError(absl::StrCat(
          "backward: found ", d_logprobs.size(),
          " derivatives, expected those of the last forward pass"));
    return CatchTorch("backward", [&]() -> absl::Status {
      const Kept kept = *std::exchange(kept_, std::nullopt);
      torch::autograd::variable_list outputs = {kept.head.logprobs},
                                     gradients = {OnDevice(d_logprobs)};
      if (!d_entropy.empty()) {
        outputs.push_back(kept.head.entropy);
        gradients.push_back(OnDevice(d_entropy));
      }
      torch::autograd::backward(outputs, gradients);
      torch::NoGradGuard no_grad;
      torch::Tensor gradient = weights_.embedding().gradient;
      gradient.index_add_(0, Ids(kept.packed.tokens, device_),
                          kept.embedded.grad().to(torch::kFloat32));
      weights_.AddLeafGradients();
      return absl::OkStatus();
    });
  }

  absl::Status AllocateCache(int64_t rows) override {
    return CatchTorch("cache", [&]() -> absl::Status {
      torch::NoGradGuard no_grad;
      caches_.clear();
      for (int64_t l = 0; rows > 0 && l < config().num_hidden_layers; ++l)
        caches_.push_back(torch::empty(
            {rows, 2 * config().num_key_value_heads, config().head_dim},
            torch::TensorOptions().dtype(dtype_).device(device_)));
      return absl::OkStatus();
    });
  }

  int64_t CacheRowBytes() const override {
    return config().num_hidden_layers * 2 * config().num_key_value_heads *
           config().head_dim * static_cast<int64_t>(torch::elementSize(dtype_));
  }

  absl::Status CopyCache(Region from, Region to, int64_t rows) override {
    return CatchTorch("cache", [&]() -> absl::Status {
      torch::NoGradGuard no_grad;
      for (torch::Tensor& cache : caches_) {
        const torch::Tensor source = cache.narrow(0, from.begin, rows);
        const bool overlap =
            to.begin < from.begin + rows && from.begin < to.begin + rows;
        cache.narrow(0, to.begin, rows)
            .copy_(overlap ? source.clone() : source);
      }
      return absl::OkStatus();
    });
  }

  absl::Status Step(absl::Span<const StepInput> inputs,
                    std::vector<SampledToken>* sampled) override {
    sampled->clear();
    return CatchTorch("step", [&]() -> absl::Status {
      torch::NoGradGuard no_grad;
      Pack();
      PackedBatch packed;
      std::vector<Sampling> samplings;
      for (const StepInput& in : inputs) {
        AttentionSegment& s = packed.segments.emplace_back();
        s.row = packed.size();
        s.rows = static_cast<int64_t>(in.tokens.size());
        s.position = in.position;
        s.region = in.region;
        for (int64_t i = 0; i < s.rows; ++i) {
          packed.tokens.push_back(in.tokens[i]);
          packed.positions.push_back(in.position + i);
        }
        if (!in.sample.has_value()) continue;
        packed.rows.push_back(packed.size() - 1);
        samplings.push_back(*in.sample);
      }
      const torch::Tensor hidden =
          Hidden(packed, Embed(packed))
              .index_select(0, Ids(packed.rows, device_));
      for (int64_t i = 0; i < hidden.size(0); i += kHeadRows) {
        const int64_t n = std::min(kHeadRows, hidden.size(0) - i);
        const std::vector<SampledToken> some =
            SampleRows(HeadLogits(hidden.narrow(0, i, n), weights_.head()),
                       {samplings.begin() + i, samplings.begin() + i + n});
        sampled->insert(sampled->end(), some.begin(), some.end());
      }
      for (const SampledToken& t : *sampled) {
        const absl::Status finite = CheckFinite({t.logprob});
        if (finite.ok()) continue;
        sampled->clear();
        return finite;
      }
      return absl::OkStatus();
    });
  }

  absl::Status ParametersChanged() override {
    return CatchTorch("weights", [&]() -> absl::Status {
      torch::NoGradGuard no_grad;
      if (trains_ && dtype_ != torch::kFloat32)
        arena().values.copy_(arena().masters);
      return absl::OkStatus();
    });
  }

 protected:
  void RestoreArena() override {
    if (!packed_) return;
    weights_.Unpack();
    packed_ = false;
  }

 private:
  // Frozen weights are laid out when they are first used.
  void Pack() {
    if (trains_ || packed_) return;
    weights_.Pack();
    packed_ = true;
  }

  // What Backward needs.
  struct Kept {
    PackedBatch packed;
    torch::Tensor embedded;  // [rows, hidden], a leaf
    HeadOutput head;
  };

  torch::Tensor OnDevice(absl::Span<const float> x) const {
    return torch::tensor(at::ArrayRef<float>(x.data(), x.size()),
                         torch::kFloat32)
        .to(device_);
  }

  torch::Tensor Embed(const PackedBatch& packed) const {
    return at::embedding(weights_.embedding().weight,
                         Ids(packed.tokens, device_));
  }

  torch::Tensor Hidden(const PackedBatch& packed, const torch::Tensor& x) {
    if (packed.size() == 0) return x;
    const Varlen attention(packed.segments, &caches_, device_);
    return RunBlocks(weights_, rope_.At(Ids(packed.positions, device_)), x,
                     attention);
  }

  HeadOutput Head(const PackedBatch& packed, const torch::Tensor& hidden,
                  const ScoreOptions& options) const {
    return RunHead(hidden.index_select(0, Ids(packed.rows, device_)),
                   weights_.head(), Ids(packed.targets, device_),
                   options.temperature, options.want_entropy, options.top_k);
  }

  static ScoreOutput OutputOf(const HeadOutput& head) {
    ScoreOutput out;
    out.logprobs = ToHost<float>(head.logprobs, torch::kFloat32);
    if (head.entropy.defined())
      out.entropy = ToHost<float>(head.entropy, torch::kFloat32);
    if (head.top_ids.defined()) {
      out.top_ids = ToHost<int32_t>(head.top_ids, torch::kInt32);
      out.top_logprobs = ToHost<float>(head.top_logprobs, torch::kFloat32);
    }
    return out;
  }

  bool packed_ = false;  // first: arena() reads it
  const torch::Device device_;
  const torch::Dtype dtype_;
  const bool trains_;
  TorchWeights weights_;
  Rope rope_;
  std::vector<torch::Tensor> caches_;  // as in Varlen
  std::optional<Kept> kept_;
};

}  // namespace

std::unique_ptr<LanguageModel> MakeTorchModel(ModelWeights weights,
                                              int64_t max_context) {
  BackEnd back_end = Describe(*weights.arena);
  return std::make_unique<TorchModel>(std::move(weights), max_context,
                                      std::move(back_end));
}

}  // namespace atod::model
