#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/queue.h"
#include "common/metrics/metrics.h"
#include "services/teacher/scorer.h"

namespace atod::teacher {

// Requests that are scored together or not at all.
struct ScoreJob {
  std::vector<ScoreRequest> requests;  // valid ones, at least one
  ScoreOptions options;
};

struct ScoreJobResult {
  std::vector<ScoreResult> results;  // one a request
  uint64_t tokens = 0;
  uint64_t cached = 0;  // of them
  absl::Duration queued;
  absl::Duration computed;  // of the batch it was in
};

// Gathers jobs of many callers into batches for one Scorer, on a thread that
// owns it. A batch is full at `batch_tokens`; an incomplete one waits `gather`
// at most, so an idle teacher answers at once and a busy one packs.
// Thread-safe.
class Batcher {
 public:
  struct Options {
    uint64_t batch_tokens = 16384;
    // Jobs beyond this are refused, so that a flood does not eat the memory.
    uint64_t queue_tokens = 1 << 22;
    absl::Duration gather = absl::Microseconds(300);
  };
  using Done = std::function<void(absl::StatusOr<ScoreJobResult>)>;

  Batcher(std::unique_ptr<Scorer> scorer, Options options,
          metrics::Registry& registry);
  // Fails what still waits with UNAVAILABLE and joins.
  ~Batcher();

  // When OK, `done` runs exactly once, on a thread of the batcher's that
  // answers while the next batch is scored; it must not block.
  // RESOURCE_EXHAUSTED: the queue is full, try later.
  absl::Status Enqueue(ScoreJob job, Done done);

 private:
  struct Waiting {
    ScoreJob job;
    Done done;
    uint64_t tokens = 0;
    // Without those that a session may hold: what counts for a batch.
    uint64_t fresh = 0;
    absl::Time since;
  };

  void Run();
  // Blocks for the first job and a little for more; empty when closed.
  std::vector<Waiting> TakeBatch();
  void Score(std::vector<Waiting> batch);
  bool FullOrClosed() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return closed_ || queue_fresh_ >= options_.batch_tokens;
  }
  bool SomeOrClosed() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return closed_ || !queue_.empty();
  }

  const std::unique_ptr<Scorer> scorer_;  // of the thread
  const Options options_;
  prometheus::Counter& tokens_total_;
  prometheus::Counter& cached_total_;
  prometheus::Counter& scored_total_;
  prometheus::Gauge& queue_items_;
  prometheus::Histogram& batch_tokens_;
  prometheus::Histogram& queue_seconds_;
  prometheus::Histogram& compute_seconds_;
  absl::Mutex mutex_;
  std::deque<Waiting> queue_ ABSL_GUARDED_BY(mutex_);
  uint64_t queue_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t queue_fresh_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  Queue<absl::AnyInvocable<void()>> answers_;
  std::thread answering_;
  std::thread thread_;  // last: uses all of the above
};

}  // namespace atod::teacher
