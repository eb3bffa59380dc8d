#include "services/learner/control_service.h"

#include <utility>

#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/rpc/rpc_status.h"

namespace atod::learner {
namespace {

grpc::ServerUnaryReactor* Done(grpc::CallbackServerContext* context,
                               const absl::Status& status = absl::OkStatus()) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpc(status));
  return reactor;
}

}  // namespace

// One WatchSteps stream: a cursor over the records.
class ControlServiceImpl::Watcher final
    : public grpc::ServerWriteReactor<v1::StepRecord> {
 public:
  Watcher(ControlServiceImpl& service, uint32_t from_step)
      : service_(service), from_step_(from_step) {}

  void Offer() {
    absl::MutexLock lock(&mutex_);
    MaybeWrite();
  }
  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (ok) MaybeWrite();
  }
  void OnCancel() override { End(); }
  void OnDone() override {
    {
      absl::MutexLock lock(&service_.mutex_);
      service_.watchers_.erase(this);
    }
    delete this;
  }
  void End() {
    absl::MutexLock lock(&mutex_);
    if (!std::exchange(ended_, true)) Finish(grpc::Status::OK);
  }

 private:
  void MaybeWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || ended_) return;
    for (v1::StepRecord& record : service_.state_.Records(next_)) {
      ++next_;
      if (record.step() < from_step_) continue;
      current_ = std::move(record);
      writing_ = true;
      StartWrite(&current_);
      return;
    }
  }

  ControlServiceImpl& service_;
  const uint32_t from_step_;
  absl::Mutex mutex_;
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  v1::StepRecord current_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

ControlServiceImpl::ControlServiceImpl(std::string run_id, uint32_t incarnation,
                                       RunState& state,
                                       Coordinator& coordinator, Ledger& ledger)
    : run_id_(std::move(run_id)),
      incarnation_(incarnation),
      state_(state),
      coordinator_(coordinator),
      ledger_(ledger) {
  state_.SetListener([this] {
    // Watchers leave under this lock, so none dies during the walk.
    absl::MutexLock lock(&mutex_);
    for (Watcher* watcher : watchers_) watcher->Offer();
  });
}

ControlServiceImpl::~ControlServiceImpl() { state_.SetListener(nullptr); }

void ControlServiceImpl::EndStreams() {
  absl::MutexLock lock(&mutex_);
  for (Watcher* watcher : watchers_) watcher->End();
}

absl::StatusOr<v1::StatusReply> ControlServiceImpl::GetStatus() {
  v1::StatusReply reply = state_.Status();
  reply.set_run_id(run_id_);
  reply.set_incarnation(incarnation_);
  for (v1::WorkerStatus& worker : coordinator_.Workers())
    *reply.add_workers() = std::move(worker);
  ATOD_ASSIGN_OR_RETURN(const Ledger::Counts counts, ledger_.Count());
  reply.set_issued(counts.issued);
  reply.set_in_flight(counts.in_flight);
  reply.set_consumed(counts.consumed);
  reply.set_dropped(counts.dropped);
  return reply;
}

grpc::ServerUnaryReactor* ControlServiceImpl::Status(
    grpc::CallbackServerContext* context, const v1::StatusRequest*,
    v1::StatusReply* reply) {
  absl::StatusOr<v1::StatusReply> status = GetStatus();
  if (status.ok()) *reply = *std::move(status);
  return Done(context, status.status());
}

grpc::ServerWriteReactor<v1::StepRecord>* ControlServiceImpl::WatchSteps(
    grpc::CallbackServerContext*, const v1::WatchStepsRequest* request) {
  auto* watcher = new Watcher(*this, request->from_step());
  {
    absl::MutexLock lock(&mutex_);
    watchers_.insert(watcher);
  }
  watcher->Offer();
  return watcher;
}

grpc::ServerUnaryReactor* ControlServiceImpl::Pause(
    grpc::CallbackServerContext* context, const v1::PauseRequest*,
    v1::PauseReply*) {
  spdlog::info("pause asked for");
  state_.SetPaused(true);
  return Done(context);
}

grpc::ServerUnaryReactor* ControlServiceImpl::Resume(
    grpc::CallbackServerContext* context, const v1::ResumeRequest*,
    v1::ResumeReply*) {
  spdlog::info("resume asked for");
  state_.SetPaused(false);
  return Done(context);
}

grpc::ServerUnaryReactor* ControlServiceImpl::Checkpoint(
    grpc::CallbackServerContext* context, const v1::CheckpointRequest*,
    v1::CheckpointReply*) {
  spdlog::info("checkpoint asked for");
  state_.RequestCheckpoint();
  return Done(context);
}

grpc::ServerUnaryReactor* ControlServiceImpl::Stop(
    grpc::CallbackServerContext* context, const v1::StopRequest*,
    v1::StopReply*) {
  spdlog::info("stop asked for");
  state_.RequestStop();
  return Done(context);
}

}  // namespace atod::learner
