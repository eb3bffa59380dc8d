#pragma once

#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "atod/v1/learner.grpc.pb.h"
#include "services/learner/coordinator.h"
#include "services/learner/ledger.h"
#include "services/learner/run_state.h"

namespace atod::learner {

// ControlService: what people see of a run and ask of it.
class ControlServiceImpl final : public v1::ControlService::CallbackService {
 public:
  // Parts are not owned.
  ControlServiceImpl(std::string run_id, uint32_t incarnation, RunState& state,
                     Coordinator& coordinator, Ledger& ledger);
  ~ControlServiceImpl() override;

  // The reply to Status, from all parts.
  absl::StatusOr<v1::StatusReply> GetStatus();

  // Ends all streams, so that the server can shut down.
  void EndStreams();

  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context,
                                   const v1::StatusRequest* request,
                                   v1::StatusReply* reply) override;
  grpc::ServerWriteReactor<v1::StepRecord>* WatchSteps(
      grpc::CallbackServerContext* context,
      const v1::WatchStepsRequest* request) override;
  grpc::ServerUnaryReactor* Pause(grpc::CallbackServerContext* context,
                                  const v1::PauseRequest* request,
                                  v1::PauseReply* reply) override;
  grpc::ServerUnaryReactor* Resume(grpc::CallbackServerContext* context,
                                   const v1::ResumeRequest* request,
                                   v1::ResumeReply* reply) override;
  grpc::ServerUnaryReactor* Checkpoint(grpc::CallbackServerContext* context,
                                       const v1::CheckpointRequest* request,
                                       v1::CheckpointReply* reply) override;
  grpc::ServerUnaryReactor* Stop(grpc::CallbackServerContext* context,
                                 const v1::StopRequest* request,
                                 v1::StopReply* reply) override;

 private:
  class Watcher;

  const std::string run_id_;
  const uint32_t incarnation_;
  RunState& state_;
  Coordinator& coordinator_;
  Ledger& ledger_;
  absl::Mutex mutex_;
  std::unordered_set<Watcher*> watchers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace atod::learner
