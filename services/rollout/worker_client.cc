#include "services/rollout/worker_client.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/rpc/channel.h"

namespace atod::rollout {
namespace {

// How often failed submissions are looked through.
constexpr absl::Duration kTick = absl::Milliseconds(100);
// What the learner gets for ending the stream of a worker that leaves.
constexpr absl::Duration kGoodbye = absl::Seconds(1);

}  // namespace

WorkerClient::WorkerClient(std::shared_ptr<grpc::Channel> channel,
                           Options options, Events events)
    : stub_(v1::LearnerService::NewStub(std::move(channel))),
      options_(std::move(options)),
      events_(std::move(events)),
      thread_([this] { Run(); }) {}

WorkerClient::~WorkerClient() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (auto& [id, submission] : submissions_) {
      if (submission.context) submission.context->TryCancel();
    }
  }
  thread_.join();
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &WorkerClient::NoCalls));
}

void WorkerClient::SetState(v1::Beat state) {
  absl::MutexLock lock(&mutex_);
  state_ = std::move(state);
}

void WorkerClient::BeatNow() {
  absl::MutexLock lock(&mutex_);
  if (stream_ != nullptr && welcomed_) SendBeat();
}

void WorkerClient::SendBeat() {
  v1::WorkerMessage message;
  *message.mutable_beat() = state_;
  stream_->Send(std::move(message));
}

void WorkerClient::Return(uint64_t lease_id, const std::string& reason) {
  v1::WorkerMessage message;
  message.mutable_return_lease()->set_lease_id(lease_id);
  message.mutable_return_lease()->set_reason(reason);
  absl::MutexLock lock(&mutex_);
  if (stream_ != nullptr) stream_->Send(std::move(message));
}

void WorkerClient::Run() {
  absl::Duration wait = options_.retry_min;
  while (true) {
    const absl::Status status = Serve();
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return;
      if (welcomed_) wait = options_.retry_min;
    }
    if (absl::IsFailedPrecondition(status) || absl::IsInvalidArgument(status)) {
      spdlog::error("learner refused this worker: {}", status.ToString());
      if (events_.on_refused) events_.on_refused(status);
    } else {
      spdlog::warn("learner: will connect again: {}", status.ToString());
    }
    const absl::Time until = absl::Now() + wait;
    wait = std::min(2 * wait, options_.retry_max);
    while (true) {
      RepeatSubmissions();
      absl::MutexLock lock(&mutex_);
      const absl::Duration left = until - absl::Now();
      if (mutex_.AwaitWithTimeout(
              absl::Condition(this, &WorkerClient::Stopping),
              std::min(left, kTick))) {
        return;
      }
      if (left <= absl::ZeroDuration()) break;
    }
  }
}

absl::Status WorkerClient::Serve() {
  {
    absl::MutexLock lock(&mutex_);
    ended_ = welcomed_ = false;
  }
  Stream stream(
      [this](grpc::ClientContext* context, Stream::Reactor* reactor) {
        stub_->async()->Work(context, reactor);
      },
      [this](v1::CoordinatorMessage& message) { OnMessage(message); },
      [this](const absl::Status& status) {
        absl::MutexLock lock(&mutex_);
        ended_ = true;
        end_ = status;
      });
  absl::Time next_beat;
  {
    absl::MutexLock lock(&mutex_);
    stream_ = &stream;
    v1::WorkerMessage hello;
    *hello.mutable_hello() = options_.hello;
    if (state_.has_held())
      *hello.mutable_hello()->mutable_held() = state_.held();
    stream.Send(std::move(hello));
    next_beat = absl::Now() + beat_every_;
  }
  while (true) {
    RepeatSubmissions();
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(
        absl::Condition(this, &WorkerClient::StoppingOrEnded),
        std::min(kTick, beat_every_));
    if (StoppingOrEnded()) {
      stream_ = nullptr;
      if (ended_) return end_;
      break;
    }
    if (welcomed_ && absl::Now() >= next_beat) {
      SendBeat();
      next_beat = absl::Now() + beat_every_;
    }
  }
  // So that the last Returns arrive.
  stream.HalfClose(kGoodbye);
  return absl::CancelledError("stopping");
}

void WorkerClient::OnMessage(v1::CoordinatorMessage& message) {
  if (message.has_welcome()) {
    const float seconds = message.welcome().beat_seconds();
    absl::MutexLock lock(&mutex_);
    if (seconds > 0) beat_every_ = absl::Seconds(seconds);
    welcomed_ = true;
  }
  events_.on_message(std::move(message));
}

void WorkerClient::Submit(v1::Trajectory trajectory,
                          std::function<void(v1::SubmitReply)> done) {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return;
  const uint64_t id = next_submission_++;
  Submission& submission = submissions_[id];
  *submission.request.mutable_trajectory() = std::move(trajectory);
  submission.done = std::move(done);
  submission.wait = options_.retry_min;
  Start(id, submission);
}

void WorkerClient::Start(uint64_t id, Submission& submission) {
  submission.context = std::make_unique<grpc::ClientContext>();
  rpc::SetTimeout(*submission.context, options_.submit_timeout);
  ++calls_;
  stub_->async()->Submit(
      submission.context.get(), &submission.request, &submission.reply,
      [this, id](grpc::Status status) { OnSubmitted(id, status); });
}

void WorkerClient::OnSubmitted(uint64_t id, const grpc::Status& status) {
  std::function<void(v1::SubmitReply)> done;
  v1::SubmitReply reply;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = submissions_.find(id);
    Submission& submission = it->second;
    submission.context.reset();
    if (!status.ok()) {
      if (!stopping_) {
        spdlog::warn("submit will be repeated: {}",
                     rpc::FromGrpc(status).ToString());
      }
      submission.not_before = absl::Now() + submission.wait;
      submission.wait = std::min(2 * submission.wait, options_.retry_max);
      --calls_;
      return;
    }
    reply = std::move(submission.reply);
    done = std::move(submission.done);
    submissions_.erase(it);
  }
  done(std::move(reply));
  absl::MutexLock lock(&mutex_);
  --calls_;
}

void WorkerClient::RepeatSubmissions() {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return;
  const absl::Time now = absl::Now();
  for (auto& [id, submission] : submissions_) {
    if (!submission.context && submission.not_before <= now) {
      Start(id, submission);
    }
  }
}

}  // namespace atod::rollout
