#pragma once

#include <deque>
#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/rpc/rpc_status.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"

namespace atod::rpc {

// One life of a client's bidirectional stream: it is open from construction to
// its end, and never opened again. Thread-safe.
template <typename Out, typename In>
class BidiStream final : private grpc::ClientBidiReactor<Out, In> {
 public:
  using Reactor = grpc::ClientBidiReactor<Out, In>;
  // Binds a stub's method: [&](auto* context, auto* reactor) {
  //   stub.async()->Work(context, reactor); }
  using Open = std::function<void(grpc::ClientContext*, Reactor*)>;
  // Both run on gRPC threads, one call at a time. `on_end` comes last, once,
  // with why the stream ended; it must not destroy the stream.
  using OnMessage = std::function<void(In&)>;
  using OnEnd = std::function<void(const absl::Status&)>;

  BidiStream(const Open& open, OnMessage on_message, OnEnd on_end)
      : on_message_(std::move(on_message)), on_end_(std::move(on_end)) {
    open(&context_, this);
    // Held while Send may start writes on threads of its callers.
    this->AddHold();
    this->StartRead(&in_);
    this->StartCall();
  }
  // Cancels and waits for the end.
  ~BidiStream() {
    context_.TryCancel();
    done_.WaitForNotification();
  }

  // Queues a message; after the end it is dropped. Does not block.
  void Send(Out message) {
    absl::MutexLock lock(&mutex_);
    if (ended_ || closing_) return;
    out_.push_back(std::move(message));
    if (out_.size() == 1) this->StartWrite(&out_.front());
  }

  // Sends what is queued, then closes this side, and gives the peer up to
  // `wait` for ending the stream. No Send after it.
  void HalfClose(absl::Duration wait) {
    {
      absl::MutexLock lock(&mutex_);
      closing_ = true;
      MaybeWritesDone();
    }
    done_.WaitForNotificationWithTimeout(wait);
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return End();
    on_message_(in_);
    this->StartRead(&in_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return End();
    absl::MutexLock lock(&mutex_);
    out_.pop_front();
    if (ended_) return;
    if (!out_.empty()) this->StartWrite(&out_.front());
    MaybeWritesDone();
  }
  void MaybeWritesDone() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!closing_ || ended_ || writes_done_ || !out_.empty()) return;
    writes_done_ = true;
    this->StartWritesDone();
  }
  void End() {
    absl::MutexLock lock(&mutex_);
    if (!std::exchange(ended_, true)) this->RemoveHold();
  }
  void OnDone(const grpc::Status& status) override {
    on_end_(status.ok() ? absl::UnavailableError("the peer ended the stream")
                        : FromGrpc(status));
    done_.Notify();
  }

  const OnMessage on_message_;
  const OnEnd on_end_;
  grpc::ClientContext context_;
  In in_;
  absl::Mutex mutex_;
  std::deque<Out> out_ ABSL_GUARDED_BY(mutex_);  // front: being written
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool writes_done_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Notification done_;
};

}  // namespace atod::rpc
