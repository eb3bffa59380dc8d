#include "services/learner/learner_service.h"

#include <deque>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/warn.h"
#include "common/rpc/rpc_status.h"

namespace atod::learner {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(200);

}  // namespace

// One worker's stream. Reads one message at a time, writes what the
// coordinator has for the session, one message under way.
class LearnerServiceImpl::WorkStream final
    : public grpc::ServerBidiReactor<v1::WorkerMessage,
                                     v1::CoordinatorMessage> {
 public:
  explicit WorkStream(LearnerServiceImpl& service)
      : service_(service), gate_(std::make_shared<Gate>()) {
    gate_->stream = this;
    StartRead(&in_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      End(absl::OkStatus());
      return;
    }
    const absl::Status status = Handle();
    if (!status.ok()) {
      End(status);
      return;
    }
    StartRead(&in_);
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ended_ && ok) MaybeWrite();
  }

  void OnCancel() override { End(absl::CancelledError("stream broke")); }

  void OnDone() override {
    {
      absl::MutexLock lock(&gate_->mutex);
      gate_->stream = nullptr;
    }
    {
      absl::MutexLock lock(&service_.mutex_);
      service_.streams_.erase(this);
    }
    delete this;
  }

  void End(const absl::Status& status) {
    Coordinator::SessionId session = 0;
    {
      absl::MutexLock lock(&mutex_);
      if (std::exchange(ended_, true)) return;
      session = session_;
      Finish(rpc::ToGrpc(status));
    }
    if (session != 0) service_.coordinator_.Disconnect(session);
  }

 private:
  // Lets the coordinator hold a way to a stream that may be gone.
  struct Gate {
    absl::Mutex mutex;
    WorkStream* stream ABSL_GUARDED_BY(mutex) = nullptr;
    void Wake() {
      absl::MutexLock lock(&mutex);
      if (stream != nullptr) stream->Flush();
    }
  };

  absl::Status Handle() {
    Coordinator::SessionId session = 0;
    {
      absl::MutexLock lock(&mutex_);
      session = session_;
    }
    if (in_.has_hello()) {
      if (session != 0)
        return absl::InvalidArgumentError("a second Hello on one stream");
      auto connected = service_.coordinator_.Connect(
          in_.hello(), [gate = gate_] { gate->Wake(); });
      if (!connected.ok()) {
        if (!absl::IsUnavailable(connected.status()))
          service_.TellOnce(
              absl::StrCat("refused: ", connected.status().message()));
        return connected.status();
      }
      spdlog::info("worker {} joined with {} slots", in_.hello().worker(),
                   in_.hello().slots());
      bool ended = false;
      {
        absl::MutexLock lock(&mutex_);
        session_ = *connected;
        ended = ended_;
      }
      // Cancelled meanwhile: End did not know of the session.
      if (ended) service_.coordinator_.Disconnect(*connected);
      Flush();
      return absl::OkStatus();
    }
    if (session == 0)
      return absl::FailedPreconditionError("the first message must be Hello");
    if (in_.has_beat()) service_.coordinator_.Beat(session, in_.beat());
    if (in_.has_return_lease())
      service_.coordinator_.Return(session, in_.return_lease());
    return absl::OkStatus();
  }

  void Flush() {
    bool over = false;
    {
      absl::MutexLock lock(&mutex_);
      if (session_ == 0 || ended_) return;
      auto more = service_.coordinator_.TakeOutbox(session_);
      over = !more.has_value();
      if (!over) {
        for (v1::CoordinatorMessage& m : *more) out_.push_back(std::move(m));
        MaybeWrite();
      }
    }
    if (over) End(absl::UnavailableError("the session is over; connect again"));
  }

  void MaybeWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || out_.empty()) return;
    writing_ = true;
    current_ = std::move(out_.front());
    out_.pop_front();
    StartWrite(&current_);
  }

  LearnerServiceImpl& service_;
  const std::shared_ptr<Gate> gate_;
  v1::WorkerMessage in_;
  absl::Mutex mutex_;
  Coordinator::SessionId session_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<v1::CoordinatorMessage> out_ ABSL_GUARDED_BY(mutex_);
  v1::CoordinatorMessage current_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

LearnerServiceImpl::LearnerServiceImpl(Coordinator& coordinator, Intake& intake,
                                       Observers observers)
    : coordinator_(coordinator),
      intake_(intake),
      observers_(std::move(observers)),
      ticker_([this] { TickLoop(); }) {}

void LearnerServiceImpl::TellOnce(const std::string& warning) {
  {
    absl::MutexLock lock(&mutex_);
    if (!told_.insert(warning).second) return;
  }
  LogWarning(warning);
}

LearnerServiceImpl::~LearnerServiceImpl() {
  stopping_.Notify();
  ticker_.join();
}

void LearnerServiceImpl::TickLoop() {
  while (!stopping_.WaitForNotificationWithTimeout(kTick)) {
    coordinator_.Tick();
    if (observers_.on_tick) observers_.on_tick();
  }
}

grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>*
LearnerServiceImpl::Work(grpc::CallbackServerContext*) {
  auto* stream = new WorkStream(*this);
  absl::MutexLock lock(&mutex_);
  streams_.insert(stream);
  return stream;
}

grpc::ServerUnaryReactor* LearnerServiceImpl::Submit(
    grpc::CallbackServerContext* context, const v1::SubmitRequest* request,
    v1::SubmitReply* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  intake_.Submit(request->trajectory(),
                 [this, reactor, reply](absl::StatusOr<v1::SubmitReply> done) {
                   if (done.ok()) {
                     if (observers_.on_verdict)
                       observers_.on_verdict(done->verdict());
                     *reply = *std::move(done);
                     reactor->Finish(grpc::Status::OK);
                   } else {
                     reactor->Finish(rpc::ToGrpc(done.status()));
                   }
                 });
  return reactor;
}

void LearnerServiceImpl::EndStreams() {
  // A stream leaves the set, and dies, only after this lock is free.
  absl::MutexLock lock(&mutex_);
  for (WorkStream* stream : streams_) stream->End(absl::OkStatus());
}

}  // namespace atod::learner
