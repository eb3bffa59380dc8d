#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/engine/sequence_cache.h"

namespace atod::engine {

struct SchedulerOptions {
  int64_t rows = 0;          // of the cache
  int64_t batch_tokens = 0;  // at most in one step; at least max_running
  int64_t max_running = 0;   // requests that have a region at once
  int64_t max_queue = 1024;  // requests that wait for one
};

// A prompt to run and tokens to draw behind it.
struct ScheduledRequest {
  uint64_t id = 0;              // unique among the living
  std::vector<int32_t> prompt;  // at least one token
  int64_t max_tokens = 0;       // to draw, at least one
  uint64_t session = 0;         // as in EngineRequest
  uint64_t group = 0;
};

// What one request computes in a step.
struct StepWork {
  uint64_t id = 0;
  absl::Span<const int32_t> tokens;  // until Done
  int64_t position = 0;  // of the first: what the region holds already
  model::Region region;
  bool sample = false;  // the last is the last known: draw the next one
};

// First the copies, in order; then all of `work` in one batch.
struct StepPlan {
  std::vector<CacheCopy> copies;
  std::vector<StepWork> work;
};

// Decides what is computed when, without a model or a clock: the same calls
// give the same plans. Requests begin in the order they came, when there is
// room for prompt and response together, so that none is ever put back; the
// first in the queue is waited for, so that large ones have their turn. A step
// first has the next token of all that decode, then what its budget leaves of
// prompts, cut into pieces, oldest first. Not thread-safe.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // INVALID_ARGUMENT for a living id, a session with a living request or what
  // the cache can never hold; RESOURCE_EXHAUSTED when the queue is full: come
  // again after a step. Nothing is queued then.
  absl::Status Enqueue(ScheduledRequest request);

  // Admits what there is room for. Work is empty only without living requests.
  StepPlan Next();
  struct Drawn {
    int32_t token = 0;
    bool last = false;  // the request ends with it
  };
  // The last plan was carried out; one entry for each work with `sample`, in
  // order. Nothing comes between Next and Done.
  void Done(const StepPlan& plan, absl::Span<const Drawn> drawn);

  // Drops a request; its session keeps what it holds. False: it does not live.
  bool Cancel(uint64_t id);
  void EndSession(uint64_t session);
  // Drops all requests and sessions, and what was to be copied.
  void Clear();
  // Nothing that was computed counts any more. Requests go on: what was drawn
  // stays, and is computed again with the prompt.
  void NewWeights() { cache_.NewWeights(); }

  bool has_work() const { return !queue_.empty() || !running_.empty(); }
  size_t queued() const { return queue_.size(); }
  size_t running() const { return running_.size(); }
  const SequenceCache& cache() const { return cache_; }
  // Since the beginning; see also SequenceCache::reused_tokens.
  int64_t prompt_tokens_computed() const { return prompt_tokens_computed_; }

 private:
  struct Running {
    uint64_t id = 0;
    Sequence* sequence = nullptr;
  };
  void Admit();

  const SchedulerOptions options_;
  SequenceCache cache_;
  std::deque<ScheduledRequest> queue_;
  std::vector<Running> running_;  // in the order of admission
  std::vector<size_t> planned_;  // of running_, in the order of the plan's work
  int64_t prompt_tokens_computed_ = 0;
};

}  // namespace atod::engine
