#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/model_config.h"
#include "common/weights/snapshot.h"

namespace atod::model {

class ParameterArena;  // arena.h

struct OpenOptions {
  std::string dtype = "float32";  // "float32", "bfloat16"; empty: the file's
  std::string device = "cpu";     // "cpu" or "cuda", as RunConfig.device
  // true: results are equal to the bit under any batch, chunk, thread or
  // session (back end cpu-exact), or the model is refused. false: torch. Unset:
  // cpu-exact where it can run the model, else torch; back_end() says which.
  std::optional<bool> deterministic = true;
  bool gradients = false;   // ScoreForBackward, Backward, arena().gradients
  int64_t max_context = 0;  // tokens of prompt and response; 0: the model's
};

// What computes. For logs, status and metrics.
struct BackEnd {
  std::string name;    // "cpu-exact", "torch"
  std::string device;  // "cpu", "cuda:0 (NVIDIA H200)"
  std::string dtype;   // "float32", "bfloat16"
};

// Rows of the key/value cache that one sequence owns: token i of the sequence
// lies in row begin + i. Both are multiples of kCacheUnit. Rows are handed out
// by the caller (engine::RegionPool); the model only reads and writes them.
inline constexpr int64_t kCacheUnit = 16;
struct Region {
  int64_t begin = 0;
  int64_t rows = 0;
  bool operator==(const Region&) const = default;
};

struct TokenSpan {
  uint32_t begin = 0;   // first scored token, at least 1
  uint32_t length = 0;  // at least 1
};

// One sequence and the tokens in it that have a log-prob.
struct ScoredSequence {
  std::vector<int32_t> tokens;
  std::vector<TokenSpan> spans;  // ascending, not overlapping
  // With rows: keys and values of the first `cached` tokens lie there already
  // (computed by this model's present weights) and those of the others are
  // written there. The first span then begins after `cached`. Without rows the
  // sequence leaves nothing behind. Not in ScoreForBackward.
  Region region{};
  int64_t cached = 0;
};

struct ScoreOptions {
  float temperature = 1;  // > 0; the one place where it is applied
  bool want_entropy = false;
  int32_t top_k = 0;  // most likely tokens wanted with each scored one
};

// Of the spans of all sequences, concatenated in order.
struct ScoreOutput {
  // log-softmax(logits / temperature) in float32 of each scored token given all
  // before it. [num_scored], nats, at most 0, finite.
  std::vector<float> logprobs;
  std::vector<float> entropy;       // [num_scored], nats; empty unless wanted
  std::vector<int32_t> top_ids;     // [num_scored, top_k], falling
  std::vector<float> top_logprobs;  // [num_scored, top_k]
};

// How the token behind an input is drawn. `noise` in [0, 1) is the counter
// noise of its place (NoiseUniform): the same noise and logits give the same
// token. Temperature 0 takes the largest logit (the lowest id of equal ones);
// else the inverse of the cumulative distribution, in order of ids, after
// top-k, then after top-p of what top-k left.
struct Sampling {
  float temperature = 1;
  float top_p = 1;
  uint32_t top_k = 0;  // 0: all
  double noise = 0;
};

// New tokens of one sequence: a prompt, a chunk of it or one sampled token.
struct StepInput {
  absl::Span<const int32_t> tokens;  // at least one
  int64_t position = 0;  // tokens of the sequence that its region holds already
  Region region;         // room for position + tokens
  std::optional<Sampling> sample;  // after the last of `tokens`
};

struct SampledToken {
  int32_t token = 0;
  // log-softmax(logits / temperature) in float32 over the whole vocabulary
  // (before top-p and top-k), at most 0; temperature 0 counts as 1.
  float logprob = 0;
};

// A Qwen3 decoder, dense or mixture of experts, in one of two back ends chosen
// once, when it is opened:
//   cpu-exact  float32 on the CPU, own kernels; batch-invariant to the bit
//   torch      any dtype, CPU or CUDA, the same operations on both
// Nothing above it knows of devices, dtypes or kernels; logits never leave it.
// Errors leave model and cache as they were, but for rows that were written.
// INTERNAL or RESOURCE_EXHAUSTED come from the device; FAILED_PRECONDITION
// says that numbers are not finite (weights that overflow). Not thread-safe.
class LanguageModel {
 public:
  // The model of a Hugging Face folder: config.json and model.safetensors, or
  // shards; F32, BF16 or F16. INVALID_ARGUMENT names the file and each tensor
  // that is missing, surplus, misshapen or not finite; FAILED_PRECONDITION
  // says why device, dtype or determinism cannot be had: never a fallback.
  static absl::StatusOr<std::unique_ptr<LanguageModel>> Open(
      const std::string& dir, const OpenOptions& options);
  virtual ~LanguageModel() = default;

  virtual const ModelConfig& config() const = 0;
  virtual int64_t max_context() const = 0;
  virtual const BackEnd& back_end() const = 0;
  // Root hash (weights::ComputeRootHash) of the weights in the compute dtype.
  virtual absl::StatusOr<std::string> WeightsHash() = 0;

  // One packed forward over all sequences; the head runs on scored positions
  // only, in pieces. A prefix that sequences share is computed once.
  virtual absl::StatusOr<ScoreOutput> Score(
      absl::Span<const ScoredSequence> batch, const ScoreOptions& options) = 0;

  // Score that keeps what Backward needs, until Backward or the next call.
  virtual absl::StatusOr<ScoreOutput> ScoreForBackward(
      absl::Span<const ScoredSequence> batch, const ScoreOptions& options) = 0;
  // Adds to arena().gradients the gradient of a loss whose derivatives by the
  // log-probs (and entropies; empty: none) of the last ScoreForBackward are
  // given, [num_scored].
  virtual absl::Status Backward(absl::Span<const float> d_logprobs,
                                absl::Span<const float> d_entropy) = 0;

  // Room for `rows` rows of keys and values; forgets what was held.
  virtual absl::Status AllocateCache(int64_t rows) = 0;
  // Bytes of one row over all layers.
  virtual int64_t CacheRowBytes() const = 0;
  // Copies rows [from.begin, + rows) to `to`, in all layers; they may overlap
  // when `to` begins before `from`.
  virtual absl::Status CopyCache(Region from, Region to, int64_t rows) = 0;
  // Runs the new tokens of all inputs in one batch, keeps their keys and
  // values, and draws a token where one is wanted; `sampled` gets one entry an
  // input that has `sample`, in order. Regions do not overlap.
  virtual absl::Status Step(absl::Span<const StepInput> inputs,
                            std::vector<SampledToken>* sampled) = 0;

  // Other weights of the same names and shapes, verified before anything
  // changes. What the cache held is worthless then.
  virtual absl::Status Install(const weights::WeightSnapshot& snapshot) = 0;
  // All parameters in `dtype`, in the order of ParameterSpecs.
  virtual absl::StatusOr<weights::WeightSnapshot> Export(
      const std::string& dtype) = 0;
  // config.json (every key as it was read, but for the dtype) and
  // model.safetensors, as transformers reads them, in `dtype`; weights of other
  // names that lay there are removed. Values that are not finite are not
  // written: INVALID_ARGUMENT names the tensor.
  virtual absl::Status Save(const std::string& dir,
                            const std::string& dtype) = 0;

  // All parameters as one buffer; see ParametersChanged.
  virtual ParameterArena& arena() = 0;
  // To be called after arena().masters were written: brings the compute dtype
  // and what the kernels keep of the weights up to date.
  virtual absl::Status ParametersChanged() = 0;
};

}  // namespace atod::model
