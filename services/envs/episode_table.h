#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "services/envs/env_caller.h"
#include "services/envs/environment.h"

namespace atod::envs {

// Environments by name. Not changed once it is in use.
using EnvironmentMap =
    std::map<std::string, std::shared_ptr<const Environment>, std::less<>>;

// Hears what an EpisodeTable does, on the calling threads.
class EpisodeObserver {
 public:
  virtual ~EpisodeObserver() = default;
  virtual void OnStart(const std::string& env) = 0;
  virtual void OnStep(const std::string& env, absl::Duration took) = 0;
  virtual void OnExpire(size_t episodes) = 0;
  virtual void OnSize(size_t episodes) = 0;
};

// The episodes that a server or a process plays: starts them once for each
// request id, plays each turn once, frees those that nobody asks about for a
// lease. Calls on different episodes run side by side. Thread-safe.
class EpisodeTable {
 public:
  // `clock` and `observer` (may be null) are not owned. An infinite lease keeps
  // episodes until Close.
  EpisodeTable(EnvironmentMap envs, absl::Duration lease, Clock* clock,
               EpisodeObserver* observer = nullptr);

  const EnvironmentMap& environments() const { return envs_; }
  absl::Duration lease() const { return lease_; }

  // The same request id again returns the same episode as long as it lives.
  absl::StatusOr<ResetResult> Reset(const ResetRequest& request);

  // Exactly one of the texts is given. The turn played last returns its result
  // again; another index than the next is FAILED_PRECONDITION, an unknown
  // episode NOT_FOUND.
  struct Input {
    std::string_view text;
    bool is_action = false;
  };
  absl::StatusOr<StepResult> Step(const std::string& episode_id,
                                  uint32_t turn_index, Input input);

  // Prolongs leases; returns the ids that are unknown.
  std::vector<std::string> KeepAlive(const std::vector<std::string>& ids);
  // Unknown ids are ignored.
  void Close(const std::vector<std::string>& ids);
  // Episodes alive now.
  size_t size() const;

 private:
  struct Entry {
    absl::Mutex mutex;
    std::string request_id;
    std::string env;
    absl::Status started ABSL_GUARDED_BY(mutex);
    std::unique_ptr<Episode> episode ABSL_GUARDED_BY(mutex);
    ResetResult reset ABSL_GUARDED_BY(mutex);
    uint32_t turns ABSL_GUARDED_BY(mutex) = 0;
    StepResult last ABSL_GUARDED_BY(mutex);
    absl::Time deadline;  // guarded by the table's mutex
  };

  absl::Status Start(const ResetRequest& request, Entry& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(entry.mutex);
  void DropExpired() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drop(const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const EnvironmentMap envs_;
  const absl::Duration lease_;
  Clock* const clock_;
  EpisodeObserver* const observer_;
  const std::string id_prefix_;

  mutable absl::Mutex mutex_;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time next_sweep_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, std::shared_ptr<Entry>> episodes_
      ABSL_GUARDED_BY(mutex_);
  // Request id to episode id.
  absl::flat_hash_map<std::string, std::string> requests_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace atod::envs
