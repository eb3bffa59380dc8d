#include "common/model/exact/exact_model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/model/arena_model.h"
#include "common/model/exact/cpu_decoder.h"
#include "common/model/exact/cpu_kernels.h"
#include "common/model/exact/exact_sampler.h"
#include "common/model/exact/exact_score.h"
#include "common/model/shared_prefix.h"
#include "common/model/torch_status.h"

namespace atod::model {
namespace {

// Tokens that run through all layers together, at most and at least.
constexpr int64_t kMostChunkTokens = 160;
constexpr int64_t kLeastChunkTokens = 16;

absl::Status NotFinite() {
  return absl::FailedPreconditionError(
      "logits: found numbers that are not finite, expected finite ones: the "
      "model's weights are so large that its logits overflow");
}

bool AllFinite(const std::vector<float>& x) {
  return std::all_of(x.begin(), x.end(),
                     [](float v) { return std::isfinite(v); });
}

// Rows of keys and values in the layout of CpuKv; memory is taken from the
// system when a row is first written.
class CachePool {
 public:
  absl::Status Allocate(int64_t rows, int64_t layers, int64_t layer_floats) {
    data_.reset();
    kv_ = {};
    if (rows == 0) return absl::OkStatus();
    data_.reset(static_cast<float*>(
        std::aligned_alloc(64, layers * layer_floats * sizeof(float))));
    if (data_ == nullptr)
      return absl::ResourceExhaustedError(absl::StrCat(
          "cache: found no memory for ", rows, " rows of keys and values"));
    kv_ = {data_.get(), rows, layer_floats, 0};
    return absl::OkStatus();
  }
  int64_t rows() const { return kv_.capacity; }
  CpuKv At(int64_t begin) const {
    CpuKv kv = kv_;
    kv.begin = begin;
    return kv;
  }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  CpuKv kv_;
};

class ExactModel final : public ArenaModel {
 public:
  ExactModel(ModelWeights weights, int64_t max_context)
      : ArenaModel(std::move(weights), max_context,
                   {"cpu-exact", "cpu", "float32"}) {}

  absl::StatusOr<ScoreOutput> Score(absl::Span<const ScoredSequence> batch,
                                    const ScoreOptions& options) override {
    const CpuDecoder& decoder = Decoder(false);
    // Prefixes that several sequences have are computed first, once.
    const std::vector<SharedPrefix> shared = FindSharedPrefixes(batch);
    CachePool prefixes;
    std::vector<CpuSegment> known(batch.size());
    for (size_t i = 0; i < batch.size(); ++i) {
      known[i].position = batch[i].cached;
      if (batch[i].region.rows > 0)
        known[i].kv = cache_.At(batch[i].region.begin);
    }
    ATOD_RETURN_IF_ERROR(RunPrefixes(decoder, batch, shared, prefixes, known));
    ScorePlan plan = MakeScorePlan(batch, [&](size_t i) { return known[i]; });
    ScoreOutput out = Sized(plan.num_scored, options);
    ScoreForward(decoder, plan, options, false, out);
    if (!AllFinite(out.logprobs)) return NotFinite();
    return out;
  }

  absl::StatusOr<ScoreOutput> ScoreForBackward(
      absl::Span<const ScoredSequence> batch,
      const ScoreOptions& options) override {
    Forget();
    batch_.assign(batch.begin(), batch.end());
    plan_ = MakeScorePlan(batch_, [](size_t) { return CpuSegment(); });
    temperature_ = options.temperature;
    ScoreOutput out = Sized(plan_.num_scored, options);
    ScoreForward(Decoder(true), plan_, options, true, out);
    entropy_ = out.entropy;
    return out;
  }

  absl::Status Backward(absl::Span<const float> d_logprobs,
                        absl::Span<const float> d_entropy) override {
    if (static_cast<int64_t>(d_logprobs.size()) != plan_.num_scored)
      return absl::InternalError(
          absl::StrCat("backward: found ", d_logprobs.size(),
                       " derivatives, expected ", plan_.num_scored));
    ScoreBackward(Decoder(true), plan_, temperature_, d_logprobs.data(),
                  d_entropy.empty() ? nullptr : d_entropy.data(),
                  d_entropy.empty() ? nullptr : entropy_.data(),
                  arena().gradients.data_ptr<float>());
    Forget();
    return absl::OkStatus();
  }

  absl::Status AllocateCache(int64_t rows) override {
    return cache_.Allocate(rows, config().num_hidden_layers, LayerFloats(rows));
  }
  int64_t CacheRowBytes() const override {
    return config().num_hidden_layers * LayerFloats(1) *
           static_cast<int64_t>(sizeof(float));
  }

  absl::Status CopyCache(Region from, Region to, int64_t rows) override {
    const int64_t dim = config().head_dim;
    const int64_t padded = PadToPanel(rows);
    const CpuKv kv = cache_.At(0);
    for (int64_t b = 0;
         b < config().num_hidden_layers * config().num_key_value_heads; ++b) {
      float* const keys = kv.data + b * 2 * kv.capacity * dim;
      std::memmove(keys + to.begin * dim, keys + from.begin * dim,
                   padded * dim * sizeof(float));
      float* values = keys + kv.capacity * dim;
      for (int64_t d = 0; d < dim; d += kPanel, values += kv.capacity * kPanel)
        std::memmove(values + to.begin * kPanel, values + from.begin * kPanel,
                     padded * kPanel * sizeof(float));
    }
    return absl::OkStatus();
  }

  absl::Status Step(absl::Span<const StepInput> inputs,
                    std::vector<SampledToken>* sampled) override {
    sampled->clear();
    const CpuDecoder& decoder = Decoder(false);
    std::vector<int64_t> outputs{0};  // of the inputs before
    for (const StepInput& in : inputs)
      outputs.push_back(outputs.back() + (in.sample.has_value() ? 1 : 0));
    sampled->resize(outputs.back());
    const std::vector<size_t> chunks = CutIntoChunks(decoder, inputs);
    const auto run = [&](int64_t first, int64_t last) {
      for (int64_t c = first; c < last; ++c)
        RunChunk(decoder, inputs, chunks[c], chunks[c + 1],
                 sampled->data() + outputs[chunks[c]]);
    };
    ForEachPass(decoder, static_cast<int64_t>(chunks.size()) - 1, run);
    for (const SampledToken& t : *sampled) {
      if (std::isfinite(t.logprob)) continue;
      sampled->clear();
      return NotFinite();
    }
    return absl::OkStatus();
  }

  absl::Status ParametersChanged() override {
    decoder_.reset();
    return absl::OkStatus();
  }

 private:
  int64_t LayerFloats(int64_t rows) const {
    return 2 * rows * config().num_key_value_heads * config().head_dim;
  }

  // The weights laid out for the kernels, once a version.
  const CpuDecoder& Decoder(bool backward) {
    if (decoder_ == nullptr || (backward && !decoder_->has_backward())) {
      std::vector<const float*> parameters;
      const float* values = arena().values.data_ptr<float>();
      for (size_t i = 0; i < arena().specs().size(); ++i)
        parameters.push_back(values + arena().offsets()[i]);
      decoder_.reset();  // before the next one takes its memory
      decoder_ = std::make_unique<CpuDecoder>(config(), parameters,
                                              max_context(), backward);
    }
    return *decoder_;
  }

  static ScoreOutput Sized(int64_t scored, const ScoreOptions& options) {
    ScoreOutput out;
    out.logprobs.resize(scored);
    if (options.want_entropy) out.entropy.resize(scored);
    out.top_ids.resize(scored * options.top_k);
    out.top_logprobs.resize(scored * options.top_k);
    return out;
  }

  void Forget() {
    Recycle(plan_);
    plan_ = {};
  }

  // Computes the shared prefixes into `pool` and points the members' segments
  // to them.
  absl::Status RunPrefixes(const CpuDecoder& decoder,
                           absl::Span<const ScoredSequence> batch,
                           const std::vector<SharedPrefix>& shared,
                           CachePool& pool, std::vector<CpuSegment>& known) {
    int64_t rows = 0;
    for (const SharedPrefix& prefix : shared) rows += prefix.tokens;
    ATOD_RETURN_IF_ERROR(
        pool.Allocate(rows, config().num_hidden_layers, LayerFloats(rows)));
    std::vector<CpuSegment> segments;
    int64_t begin = 0;
    for (const SharedPrefix& prefix : shared) {
      CpuSegment& segment = segments.emplace_back();
      segment.tokens = batch[prefix.members[0]].tokens.data();
      segment.num_tokens = prefix.tokens;
      segment.kv = pool.At(begin);
      for (const int32_t m : prefix.members) {
        known[m].position = known[m].shared = prefix.tokens;
        known[m].prefix = pool.At(begin);
      }
      begin += prefix.tokens;
    }
    const auto run = [&](int64_t first, int64_t last) {
      FloatBuffer workspace;
      for (int64_t i = first; i < last; ++i)
        decoder.Forward({segments[i]}, workspace, nullptr, nullptr);
    };
    ForEachPass(decoder, static_cast<int64_t>(segments.size()), run);
    return absl::OkStatus();
  }

  // First inputs of the chunks, and the end.
  static std::vector<size_t> CutIntoChunks(const CpuDecoder& decoder,
                                           absl::Span<const StepInput> inputs) {
    int64_t total = 0;
    for (const StepInput& in : inputs) total += in.tokens.size();
    // A large model's weights are read as seldom as can be.
    const int64_t wanted = decoder.is_large()
                               ? kMostChunkTokens
                               : at::divup(total, at::get_num_threads());
    const int64_t most =
        std::clamp(wanted, kLeastChunkTokens, kMostChunkTokens);
    std::vector<size_t> begin;
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
    return begin;
  }

  // Inputs [begin, end) of a step; `sampled` has room for theirs.
  void RunChunk(const CpuDecoder& decoder, absl::Span<const StepInput> inputs,
                size_t begin, size_t end, SampledToken* sampled) const {
    thread_local FloatBuffer workspace, hidden, logits;
    std::vector<CpuSegment> segments;
    std::vector<const Sampling*> samplings;
    for (size_t i = begin; i < end; ++i) {
      const StepInput& in = inputs[i];
      const int32_t n = static_cast<int32_t>(in.tokens.size());
      CpuSegment& segment = segments.emplace_back();
      segment.tokens = in.tokens.data();
      segment.num_tokens = n;
      segment.position = in.position;
      segment.kv = cache_.At(in.region.begin);
      if (!in.sample.has_value()) continue;
      segment.outputs = {n - 1};
      samplings.push_back(&*in.sample);
    }
    const int64_t rows = static_cast<int64_t>(samplings.size());
    const int64_t vocab = config().vocab_size;
    hidden.resize(rows * config().hidden_size);
    decoder.Forward(segments, workspace, nullptr, hidden.data());
    logits.resize(rows * vocab);
    decoder.Logits(rows, hidden.data(), logits.data());
    ForEachRow(rows, vocab, [&, first = logits.data()](int64_t r) {
      thread_local ExactSampler sampler;
      sampled[r] = sampler.Sample(first + r * vocab, vocab, *samplings[r]);
    });
  }

  std::unique_ptr<CpuDecoder> decoder_;  // null after a change
  CachePool cache_;
  // Of the last ScoreForBackward.
  std::vector<ScoredSequence> batch_;
  ScorePlan plan_;
  float temperature_ = 1;
  std::vector<float> entropy_;
};

}  // namespace

std::string ExactObstacle(const ModelConfig& config, const std::string& dtype,
                          const std::string& device) {
  if (device != "cpu") return absl::StrCat("device ", device);
  if (dtype != "float32") return absl::StrCat("dtype ", dtype);
  if (!CpuKernelsSupported()) return "a CPU without AVX2 and FMA";
  if (config.num_experts > 0) return "a mixture of experts";
  if (!CpuDecoder::Supports(config))
    return "hidden_size, intermediate_size or head_dim that is no multiple of "
           "16";
  return "";
}

std::unique_ptr<LanguageModel> MakeExactModel(ModelWeights weights,
                                              int64_t max_context) {
  return std::make_unique<ExactModel>(std::move(weights), max_context);
}

}  // namespace atod::model
