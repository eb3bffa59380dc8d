#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/weights/snapshot.h"

namespace atod::weights {

// A published version and its weights (proto: atod.v1.WeightVersion; its
// root_hash is the snapshot's).
struct PublishedWeights {
  uint32_t incarnation = 0;
  uint64_t number = 0;
  std::string arch_hash;
  std::shared_ptr<const WeightSnapshot> snapshot;
  // When a subscriber heard of it, before it fetched; of no publisher.
  absl::Time heard = absl::InfinitePast();
};

// The learner's side of weight publication: the newest version, held for those
// who fetch it. Thread-safe.
class VersionStore {
 public:
  // Replaces the version held. Fetches under way keep theirs alive.
  void Publish(PublishedWeights weights) {
    absl::MutexLock listener_lock(&listener_mutex_);
    {
      absl::MutexLock lock(&mutex_);
      newest_ = std::move(weights);
    }
    if (listener_) listener_();
  }

  std::optional<PublishedWeights> Newest() const {
    absl::MutexLock lock(&mutex_);
    return newest_;
  }

  // Runs on the publishing thread after each Publish. Null removes it, and
  // returns after a call under way.
  void SetListener(std::function<void()> listener) {
    absl::MutexLock lock(&listener_mutex_);
    listener_ = std::move(listener);
  }

 private:
  mutable absl::Mutex mutex_;
  std::optional<PublishedWeights> newest_ ABSL_GUARDED_BY(mutex_);
  absl::Mutex listener_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  std::function<void()> listener_ ABSL_GUARDED_BY(listener_mutex_);
};

}  // namespace atod::weights
