#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
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

struct EngineStats {
  int64_t cache_rows = 0;
  int64_t cache_rows_used = 0;  // by requests and idle sessions
  size_t queued = 0;
  size_t running = 0;
  int64_t idle_sessions = 0;
  // Since the beginning. Tokens of prompts:
  int64_t prompt_tokens_computed = 0;
  int64_t prompt_tokens_reused = 0;  // of a session or a group
  int64_t sessions_evicted = 0;      // idle ones that gave way
};

// Sampling from a model: keys and values in regions, continuous batching. One
// thread owns it. It never blocks and never calls out: the owner calls Step in
// a loop.
class Engine {
 public:
  virtual ~Engine() = default;
  // INVALID_ARGUMENT for an empty or over-long prompt, ids out of range, bad
  // sampling values, a living id or a session with a living request;
  // RESOURCE_EXHAUSTED when the queue is full: come again after a step. Nothing
  // is queued then.
  virtual absl::Status Enqueue(EngineRequest request) = 0;
  // One batch over the active requests (admitting queued ones first) and what
  // finished by it. Empty work returns at once. After an error (numbers that
  // are not finite, a device that fails) no request and no session is left.
  virtual absl::StatusOr<std::vector<EngineResult>> Step() = 0;
  virtual bool has_work() const = 0;
  // Frees what the session holds, at the end of its living request if there is
  // one. Nothing happens for a session that holds nothing.
  virtual void EndSession(uint64_t session) = 0;
  // Drops a request; its session keeps what it holds. False: it does not live.
  virtual bool Cancel(uint64_t id) = 0;
  // Queued and active requests are dropped, sessions end.
  virtual void CancelAll() = 0;
  virtual EngineStats stats() const = 0;
};

// An Engine on a model whose weights can be changed.
class ModelEngine : public Engine {
 public:
  // FAILED_PRECONDITION while requests are queued or active: no request
  // crosses a weight swap. What sessions hold is computed anew. On an error
  // the old weights stay.
  virtual absl::Status InstallWeights(
      const weights::WeightSnapshot& snapshot) = 0;
  // Tokens sampled so far for a living request; until the next call.
  virtual absl::Span<const int32_t> Sampled(uint64_t id) const = 0;
  virtual const model::ModelConfig& config() const = 0;
  virtual const model::BackEnd& back_end() const = 0;
  virtual int64_t max_context() const = 0;
  // One line that says what computes, and with what room.
  virtual std::string Description() const = 0;
};

struct EngineOptions {
  model::OpenOptions model{};
  int max_slots = 64;     // requests that run at once
  int64_t kv_tokens = 0;  // rows of the cache; 0: max_slots x max_context
  // Tokens of one step; at least max_slots.
  int64_t batch_tokens = 8192;
  int64_t max_queue = 1024;  // requests that wait for room
};

// Of a model that has no cache yet; `options.model` is not read. A response
// ends at any of `stop_tokens`.
absl::StatusOr<std::unique_ptr<ModelEngine>> MakeEngine(
    std::unique_ptr<model::LanguageModel> model,
    absl::Span<const int32_t> stop_tokens, const EngineOptions& options);

// The model of a Hugging Face folder and its model::StopTokens.
absl::StatusOr<std::unique_ptr<ModelEngine>> OpenEngine(
    const std::string& model_dir, const EngineOptions& options);

}  // namespace atod::engine
