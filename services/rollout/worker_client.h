#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "atod/v1/learner.grpc.pb.h"
#include "common/rpc/bidi_stream.h"
#include "grpcpp/channel.h"

namespace atod::rollout {

// A worker's line to the learner: the Work stream, opened again whenever it
// breaks, and Submit, repeated until there is a verdict. A thread of its own
// sends the Beats, so that a long engine step does not look like death.
// Thread-safe.
class WorkerClient {
 public:
  struct Options {
    v1::Hello hello;  // without `held`
    absl::Duration retry_min = absl::Milliseconds(50);
    absl::Duration retry_max = absl::Seconds(2);
    absl::Duration submit_timeout = absl::Seconds(120);
  };
  // Both run on threads of the client or of gRPC and must not block.
  struct Events {
    std::function<void(v1::CoordinatorMessage)> on_message;
    // The learner will not have this worker (FAILED_PRECONDITION,
    // INVALID_ARGUMENT); it is asked again all the same.
    std::function<void(const absl::Status&)> on_refused;
  };

  WorkerClient(std::shared_ptr<grpc::Channel> channel, Options options,
               Events events);
  // Cancels what is under way and joins. Submissions without a verdict are
  // dropped: the learner gives their work out again.
  ~WorkerClient();

  // What Beats and the next Hello say.
  void SetState(v1::Beat state);
  // Sends a Beat now.
  void BeatNow();
  // Gives back a lease. Without a stream nothing is sent: then the learner
  // takes back what the next Beat does not name.
  void Return(uint64_t lease_id, const std::string& reason);
  // `done` runs once, with the verdict, unless the client is destroyed first.
  void Submit(v1::Trajectory trajectory,
              std::function<void(v1::SubmitReply)> done);

 private:
  using Stream = rpc::BidiStream<v1::WorkerMessage, v1::CoordinatorMessage>;
  struct Submission {
    v1::SubmitRequest request;
    v1::SubmitReply reply;
    std::function<void(v1::SubmitReply)> done;
    std::unique_ptr<grpc::ClientContext> context;  // of the call under way
    absl::Time not_before = absl::InfinitePast();
    absl::Duration wait;
  };

  void Run();
  absl::Status Serve();
  void OnMessage(v1::CoordinatorMessage& message);
  void SendBeat() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Start(uint64_t id, Submission& submission)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnSubmitted(uint64_t id, const grpc::Status& status);
  void RepeatSubmissions();
  bool Stopping() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_; }
  bool StoppingOrEnded() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || ended_;
  }
  bool NoCalls() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return calls_ == 0;
  }

  const std::unique_ptr<v1::LearnerService::Stub> stub_;
  const Options options_;
  const Events events_;
  absl::Mutex mutex_;
  v1::Beat state_ ABSL_GUARDED_BY(mutex_);
  absl::Duration beat_every_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(2);
  // Set while there is a stream; it is the thread's.
  Stream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool welcomed_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, Submission> submissions_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_submission_ ABSL_GUARDED_BY(mutex_) = 1;
  size_t calls_ ABSL_GUARDED_BY(mutex_) = 0;  // Submits under way
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: uses all of the above
};

}  // namespace atod::rollout
