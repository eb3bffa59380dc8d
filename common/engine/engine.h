#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/rng.h"
#include "common/model/language_model.h"
#include "common/model/model_config.h"
#include "common/weights/snapshot.h"

namespace atod::engine {

struct SamplingParams {
  float temperature = 1;  // divides the logits; 0 is greedy
  float top_p = 1;
  uint32_t top_k = 0;  // 0: all
  uint32_t max_tokens = 512;
};

// One response to generate.
struct EngineRequest {
  uint64_t id = 0;  // chosen by the caller, unique among living requests
  std::vector<int32_t> prompt{};  // token ids, at least one
  SamplingParams sampling{};
  NoiseKey noise{};  // `position` is filled by the engine
  // 0: none. The keys of prompt and response stay after the response, and the
  // next request of the same session computes only what its prompt does not
  // share with them. One living request a session at most.
  uint64_t session = 0;
  // 0: none. Requests of one group whose prompts begin alike compute that
  // beginning once.
  uint64_t group = 0;
};

enum class FinishReason { kStop, kLength, kCancelled };

struct EngineResult {
  uint64_t id = 0;
  std::vector<int32_t> tokens;  // sampled ids, the end token included
  // log-softmax(logits / temperature) in float32 of each sampled token, over
  // the whole vocabulary (before top-p and top-k); temperature 0 counts as 1.
  std::vector<float> logprobs;
  FinishReason finish = FinishReason::kStop;
};

// Student inference: KV cache and continuous batching. One thread owns it.
// It never blocks and never calls out: the owner calls Step in a loop.
class Engine {
 public:
  virtual ~Engine() = default;
  // INVALID_ARGUMENT for an empty or over-long prompt, ids out of range, bad
  // sampling values or a living id. Nothing is queued then.
  virtual absl::Status Enqueue(EngineRequest request) = 0;
  // One batched forward over all active requests (admitting queued ones first)
  // and what finished by it. Empty work returns at once.
  virtual absl::StatusOr<std::vector<EngineResult>> Step() = 0;
  virtual bool has_work() const = 0;
  // Frees what the session holds, at the end of its living request if there is
  // one. Nothing happens for a session that holds nothing.
  virtual void EndSession(uint64_t session) = 0;
  // Queued and active requests are dropped.
  virtual void CancelAll() = 0;
};

// An Engine on a model whose weights can be changed.
class ModelEngine : public Engine {
 public:
  // FAILED_PRECONDITION while requests are queued or active: no request
  // crosses a weight swap. On an error the old weights stay.
  virtual absl::Status InstallWeights(
      const weights::WeightSnapshot& snapshot) = 0;
  virtual const model::ModelConfig& config() const = 0;
  virtual const model::BackEnd& back_end() const = 0;
  virtual int64_t max_context() const = 0;
};

struct EngineOptions {
  model::OpenOptions model;
  int max_slots = 64;  // requests that run at once
  // Prompt tokens admitted in one step, except that one prompt always is.
  int64_t max_prefill_tokens = 8192;
};

// The model of a Hugging Face folder. A response ends at any of its
// model::StopTokens.
absl::StatusOr<std::unique_ptr<ModelEngine>> MakeEngine(
    const std::string& model_dir, const EngineOptions& options);

}  // namespace atod::engine
