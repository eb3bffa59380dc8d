#pragma once

#include <functional>
#include <set>
#include <string>
#include <thread>
#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "atod/v1/learner.grpc.pb.h"
#include "services/learner/coordinator.h"
#include "services/learner/intake.h"

namespace atod::learner {

// LearnerService over a Coordinator and an Intake: each Work stream is one
// session. It also lets the coordinator's time pass.
class LearnerServiceImpl final : public v1::LearnerService::CallbackService {
 public:
  struct Observers {  // for metrics; may be empty
    std::function<void(v1::SubmitReply::Verdict)> on_verdict;
    std::function<void()> on_tick;  // a few times a second
  };
  // Parts are not owned; `coordinator` outlives the server, `intake` too.
  LearnerServiceImpl(Coordinator& coordinator, Intake& intake,
                     Observers observers = {});
  ~LearnerServiceImpl() override;

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Work(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Submit(grpc::CallbackServerContext* context,
                                   const v1::SubmitRequest* request,
                                   v1::SubmitReply* reply) override;

  // Ends all streams, so that the server can shut down.
  void EndStreams();

 private:
  class WorkStream;
  void TickLoop();
  // A worker that is refused may ask again.
  void TellOnce(const std::string& warning);

  Coordinator& coordinator_;
  Intake& intake_;
  const Observers observers_;
  absl::Mutex mutex_;
  std::unordered_set<WorkStream*> streams_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> told_ ABSL_GUARDED_BY(mutex_);
  absl::Notification stopping_;
  std::thread ticker_;  // last: uses the above
};

}  // namespace atod::learner
