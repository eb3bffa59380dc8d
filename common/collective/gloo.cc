#define USE_C10D_GLOO

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "common/base/status_macros.h"
#include "common/collective/communicator.h"
#include "common/collective/store.h"
#include "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp"

namespace atod {
namespace {

using collective::Guarded;

at::ScalarType TorchType(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return at::kFloat;
    case ElementType::kBFloat16:
      return at::kBFloat16;
    case ElementType::kInt64:
      return at::kLong;
  }
  return at::kFloat;
}

// A view of the caller's memory.
at::Tensor View(const void* data, int64_t count, ElementType type) {
  return at::from_blob(const_cast<void*>(data), {count}, TorchType(type));
}

// c10d's Gloo group behind the seam. c10d works on tensors of its own, which
// outlive a call that Abort() cut short: its threads may still write into them
// when the caller's buffers are gone. Costs one copy in and out, little beside
// the network.
class GlooCommunicator final : public Communicator {
 public:
  GlooCommunicator(const CommunicatorOptions& options,
                   c10::intrusive_ptr<c10d::Store> store)
      : rank_(options.rank),
        world_size_(options.world_size),
        store_(std::move(store)) {
    auto group = c10d::ProcessGroupGloo::Options::create_default(
        absl::ToChronoMilliseconds(options.timeout));
    // Ranks on one machine stay on its loopback interface.
    const bool loopback = options.store_host == "localhost" ||
                          options.store_host.starts_with("127.");
    group->devices = {
        loopback ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                 : c10d::ProcessGroupGloo::createDefaultDevice()};
    group_ = std::make_unique<c10d::ProcessGroupGloo>(store_, rank_,
                                                      world_size_, group);
  }

  ~GlooCommunicator() override {
    // The group's destructor waits for calls in flight. After Abort() or an
    // error they may never end, so the group is left to the process's end.
    absl::MutexLock lock(&call_->mutex);
    if (call_->broken) static_cast<void>(group_.release());
  }

  int rank() const override { return rank_; }
  int world_size() const override { return world_size_; }

  absl::Status AllReduce(void* data, int64_t count, ElementType type,
                         ReduceOp op) override {
    if (count == 0) return absl::OkStatus();
    return Run(
        "all-reduce",
        [&](at::Tensor& result) {
          result = View(data, count, type).clone();
          std::vector<at::Tensor> tensors = {result};
          c10d::AllreduceOptions options;
          options.reduceOp =
              op == ReduceOp::kSum ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
          return group_->allreduce(tensors, options);
        },
        View(data, count, type));
  }

  absl::Status AllGather(const void* in, void* out, int64_t count,
                         ElementType type) override {
    if (count == 0) return absl::OkStatus();
    return Run(
        "all-gather",
        [&](at::Tensor& result) {
          at::Tensor part = View(in, count, type).clone();
          result = at::empty({world_size_ * count}, part.options());
          return group_->_allgather_base(result, part);
        },
        View(out, world_size_ * count, type));
  }

  absl::Status ReduceScatter(const void* in, void* out, int64_t count,
                             ElementType type) override {
    if (count == 0) return absl::OkStatus();
    return Run(
        "reduce-scatter",
        [&](at::Tensor& result) {
          // As c10d does it on Gloo (which has none of its own): reduce all
          // parts and keep one. c10d's wrapper has no completion callback.
          at::Tensor parts = View(in, world_size_ * count, type).clone();
          result = parts.narrow(0, rank_ * count, count);
          std::vector<at::Tensor> tensors = {parts};
          return group_->allreduce(tensors, c10d::AllreduceOptions());
        },
        View(out, count, type));
  }

  absl::Status Broadcast(void* data, int64_t count, ElementType type,
                         int root) override {
    if (count == 0) return absl::OkStatus();
    return Run(
        "broadcast",
        [&](at::Tensor& result) {
          result = View(data, count, type).clone();
          std::vector<at::Tensor> tensors = {result};
          c10d::BroadcastOptions options;
          options.rootRank = root;
          return group_->broadcast(tensors, options);
        },
        View(data, count, type));
  }

  absl::Status Barrier() override {
    return Run(
        "barrier", [&](at::Tensor&) { return group_->barrier(); },
        at::Tensor());
  }

  void Abort() override {
    absl::MutexLock lock(&call_->mutex);
    call_->broken = true;
  }

 private:
  // Shared with the completion callback of a call, which may come after this
  // object is gone.
  struct Call {
    absl::Mutex mutex;
    uint64_t finished ABSL_GUARDED_BY(mutex) = 0;  // number of the last call
    bool broken ABSL_GUARDED_BY(mutex) = false;
  };

  // Starts an operation on a tensor that `start` makes, waits until it is done
  // or aborted, and copies the tensor to `out`.
  template <typename Start>
  absl::Status Run(const char* what, Start start, at::Tensor out) {
    const uint64_t number = ++calls_;
    {
      absl::MutexLock lock(&call_->mutex);
      if (call_->broken)
        return absl::AbortedError(
            absl::StrCat(what, ": the communicator was aborted"));
    }
    const absl::Status status = Guarded(what, [&]() -> absl::Status {
      at::Tensor result;
      const c10::intrusive_ptr<c10d::Work> work = start(result);
      const auto future = work->getFuture();
      future->addCallback([call = call_, number](c10::ivalue::Future&) {
        absl::MutexLock lock(&call->mutex);
        call->finished = number;
      });
      {
        absl::MutexLock lock(&call_->mutex);
        const auto over = [this, number]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
          return call_->broken || call_->finished == number;
        };
        call_->mutex.Await(absl::Condition(&over));
        if (call_->finished != number)
          return absl::AbortedError(absl::StrCat(what, ": aborted"));
      }
      work->wait();  // done: only throws what went wrong
      if (out.defined()) out.copy_(result);
      return absl::OkStatus();
    });
    if (!status.ok()) Abort();
    return status;
  }

  const int rank_;
  const int world_size_;
  const std::shared_ptr<Call> call_ = std::make_shared<Call>();
  uint64_t calls_ = 0;
  c10::intrusive_ptr<c10d::Store> store_;
  std::unique_ptr<c10d::ProcessGroupGloo> group_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> MakeGlooCommunicator(
    const CommunicatorOptions& options) {
  ATOD_RETURN_IF_ERROR(collective::CheckRanks(options));
  ATOD_ASSIGN_OR_RETURN(c10::intrusive_ptr<c10d::Store> store,
                        collective::OpenStore(options));
  std::unique_ptr<Communicator> communicator;
  ATOD_RETURN_IF_ERROR(Guarded("joining the Gloo group", [&] {
    communicator =
        std::make_unique<GlooCommunicator>(options, std::move(store));
    return absl::OkStatus();
  }));
  return communicator;
}

}  // namespace atod
