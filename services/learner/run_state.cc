#include "services/learner/run_state.h"

#include <utility>

namespace atod::learner {

void RunState::SetStep(uint32_t step, uint32_t steps) {
  absl::MutexLock lock(&mutex_);
  step_ = step;
  steps_ = steps;
}

void RunState::SetPhase(const std::string& phase) {
  absl::MutexLock lock(&mutex_);
  phase_ = phase;
}

void RunState::SetVersion(const v1::WeightVersion& version) {
  absl::MutexLock lock(&mutex_);
  version_ = version;
}

void RunState::AddRecord(const v1::StepRecord& record) {
  absl::MutexLock listener_lock(&listener_mutex_);
  {
    absl::MutexLock lock(&mutex_);
    records_.push_back(record);
  }
  if (listener_) listener_();
}

void RunState::WaitWhilePaused() {
  absl::MutexLock lock(&mutex_);
  const auto go = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !paused_ || stop_;
  };
  if (go()) return;
  phase_ = "paused";
  mutex_.Await(absl::Condition(&go));
}

bool RunState::TakeCheckpointRequest() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(checkpoint_, false);
}

bool RunState::stop_requested() const {
  absl::MutexLock lock(&mutex_);
  return stop_;
}

void RunState::SetPaused(bool paused) {
  absl::MutexLock lock(&mutex_);
  paused_ = paused;
}

void RunState::SetStudent(const v1::ModelInfo& student) {
  absl::MutexLock lock(&mutex_);
  student_ = student;
}

void RunState::SetTeachers(const std::vector<v1::ModelInfo>& teachers) {
  absl::MutexLock lock(&mutex_);
  teachers_ = teachers;
}

void RunState::RequestCheckpoint() {
  absl::MutexLock lock(&mutex_);
  checkpoint_ = true;
}

void RunState::RequestStop() {
  absl::MutexLock lock(&mutex_);
  stop_ = true;
}

v1::StatusReply RunState::Status() const {
  absl::MutexLock lock(&mutex_);
  v1::StatusReply reply;
  reply.set_step(step_);
  reply.set_steps(steps_);
  reply.set_phase(phase_);
  *reply.mutable_version() = version_;
  *reply.mutable_student() = student_;
  for (const v1::ModelInfo& teacher : teachers_)
    *reply.add_teachers() = teacher;
  return reply;
}

uint32_t RunState::step() const {
  absl::MutexLock lock(&mutex_);
  return step_;
}

std::vector<v1::StepRecord> RunState::Records(size_t first) const {
  absl::MutexLock lock(&mutex_);
  if (first >= records_.size()) return {};
  return {records_.begin() + first, records_.end()};
}

void RunState::SetListener(std::function<void()> listener) {
  absl::MutexLock lock(&listener_mutex_);
  listener_ = std::move(listener);
}

}  // namespace atod::learner
