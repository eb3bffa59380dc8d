#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "atod/v1/teacher.grpc.pb.h"
#include "common/rpc/bidi_stream.h"
#include "grpcpp/channel.h"
#include "services/teacher/teacher_caller.h"

namespace atod::teacher {

// Weights hash by model, as the first handshake found it. Thread-safe.
class KnownWeights {
 public:
  // What is known of the model; `hash` when nothing was.
  std::string Learn(const std::string& model, const std::string& hash);

 private:
  absl::Mutex mutex_;
  std::map<std::string, std::string> hashes_ ABSL_GUARDED_BY(mutex_);
};

// Scores turns over one ScoreStream, opened and watched by a thread of its own.
// Each connection begins with a handshake: the teacher must have the student's
// tokenizer and a row for each of its ids, and a model that was seen before
// must still have the same weights. When the teacher dies, what it did not
// answer is sent again to the next one. Thread-safe.
class TeacherClient final : public TeacherCaller {
 public:
  struct Options {
    std::string tokenizer_hash;  // of the student
    uint32_t vocab_size = 0;     // ids that the student can sample
    // A request that is not answered for so long fails with DEADLINE_EXCEEDED.
    absl::Duration timeout = absl::Seconds(120);
    absl::Duration retry_min = absl::Milliseconds(50);
    absl::Duration retry_max = absl::Seconds(2);
    // Hears, on the client's thread, that the handshake refused the teacher
    // (FAILED_PRECONDITION); may be null.
    std::function<void(const absl::Status&)> on_refused = nullptr;
    // Of several clients of the same teachers; null: of this one.
    std::shared_ptr<KnownWeights> known_weights = nullptr;
    // Requests wait for a teacher that is away; else they fail with
    // UNAVAILABLE, because another one can answer.
    bool lone = true;
  };

  TeacherClient(std::shared_ptr<grpc::Channel> channel, Options options);
  // Fails what waits with CANCELLED and joins.
  ~TeacherClient() override;

  void Score(TeacherRequest request,
             std::function<void(absl::StatusOr<TeacherReply>)> done) override;

  struct Load {
    bool connected = false;
    size_t waiting = 0;  // requests without an answer
  };
  Load load() const;

 private:
  using Stream = rpc::BidiStream<v1::ScoreRequest, v1::ScoreReply>;
  using Done = std::function<void(absl::StatusOr<TeacherReply>)>;
  struct Pending {
    v1::ScoreRequest request;
    Done done;
    absl::Time deadline;
    absl::Time not_before;  // a refused request waits until then
    bool sent = false;      // on the stream of now
  };

  void Run();
  // Asks the teacher who it is.
  absl::Status Handshake();
  absl::Status CheckModels(const v1::ListModelsReply& reply)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // One life of the stream; returns why it ended.
  absl::Status Serve();
  void OnReply(v1::ScoreReply& reply);
  void Send(Pending& pending) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendDue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Fails the requests whose deadline is before `now`.
  void FailOverdue(absl::Time now, const absl::Status& status);
  bool Stopping() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_; }
  bool StoppingOrEnded() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || ended_;
  }

  const std::unique_ptr<v1::TeacherService::Stub> stub_;
  const Options options_;
  const std::shared_ptr<KnownWeights> known_weights_;
  mutable absl::Mutex mutex_;
  // Weights hash by model, of the last handshake.
  std::map<std::string, std::string> weights_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, Pending> pending_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  // Set while there is a stream; it is the thread's.
  Stream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  grpc::ClientContext* handshake_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: uses all of the above
};

}  // namespace atod::teacher
