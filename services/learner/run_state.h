#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "atod/v1/learner.pb.h"

namespace atod::learner {

// What the run is doing, for those who watch it, and what they asked of it.
// The run's thread writes the first half and obeys the second. Thread-safe.
class RunState {
 public:
  // --- The run's thread.
  void SetStep(uint32_t step, uint32_t steps);
  void SetPhase(const std::string& phase);
  void SetVersion(const v1::WeightVersion& version);
  void SetStudent(const v1::ModelInfo& student);
  void SetTeachers(const std::vector<v1::ModelInfo>& teachers);
  void AddRecord(const v1::StepRecord& record);
  // Blocks while paused and not told to stop.
  void WaitWhilePaused();
  // A checkpoint was asked for since the last call.
  bool TakeCheckpointRequest();
  // The run is to end after the current step.
  bool stop_requested() const;

  // --- Anyone.
  void SetPaused(bool paused);
  void RequestCheckpoint();
  void RequestStop();
  // step, steps, phase, version, models.
  v1::StatusReply Status() const;
  uint32_t step() const;
  // Records number `first` and later, in order.
  std::vector<v1::StepRecord> Records(size_t first) const;
  // Runs after each AddRecord, on the run's thread; null removes it, and
  // returns after a call under way.
  void SetListener(std::function<void()> listener);

 private:
  mutable absl::Mutex mutex_;
  uint32_t step_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t steps_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string phase_ ABSL_GUARDED_BY(mutex_) = "starting";
  v1::WeightVersion version_ ABSL_GUARDED_BY(mutex_);
  v1::ModelInfo student_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::ModelInfo> teachers_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::StepRecord> records_ ABSL_GUARDED_BY(mutex_);
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  bool checkpoint_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Mutex listener_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  std::function<void()> listener_ ABSL_GUARDED_BY(listener_mutex_);
};

}  // namespace atod::learner
