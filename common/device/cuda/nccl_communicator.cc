#include "common/device/cuda/nccl_communicator.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/status_macros.h"
#include "common/device/cuda/cuda_device.h"
#include "common/device/plugin.h"

namespace atod::cuda {
namespace {

static_assert(sizeof(ncclUniqueId) <= DevicePlugin::kJoinTokenBytes);

absl::Status ToStatus(ncclResult_t result, const char* what) {
  if (result == ncclSuccess) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(what, ": NCCL: ", ncclGetErrorString(result)));
}

ncclDataType_t NcclType(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return ncclFloat32;
    case ElementType::kBFloat16:
      return ncclBfloat16;
    case ElementType::kInt64:
      return ncclInt64;
  }
  return ncclFloat32;
}

// Operations run on a stream of their own that, unlike a non-blocking one,
// keeps the order with torch's default stream: what the model wrote before the
// call is what is sent.
class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(int rank, int world_size, int gpu, absl::Duration timeout,
                   ncclComm_t comm, cudaStream_t stream)
      : rank_(rank),
        world_size_(world_size),
        gpu_(gpu),
        timeout_(timeout),
        comm_(comm),
        stream_(stream) {}

  ~NcclCommunicator() override {
    cudaSetDevice(gpu_);
    bool aborted;
    {
      absl::MutexLock lock(&mutex_);
      aborted = aborted_;
    }
    if (!aborted) ncclCommDestroy(comm_);
    // After either, the stream's work ends; the callback uses this object.
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
    cudaFree(barrier_);
  }

  int rank() const override { return rank_; }
  int world_size() const override { return world_size_; }

  absl::Status AllReduce(void* data, int64_t count, ElementType type,
                         ReduceOp op) override {
    return Run("all-reduce", [&] {
      return ncclAllReduce(data, data, count, NcclType(type),
                           op == ReduceOp::kSum ? ncclSum : ncclMax, comm_,
                           stream_);
    });
  }

  absl::Status AllGather(const void* in, void* out, int64_t count,
                         ElementType type) override {
    return Run("all-gather", [&] {
      return ncclAllGather(in, out, count, NcclType(type), comm_, stream_);
    });
  }

  absl::Status ReduceScatter(const void* in, void* out, int64_t count,
                             ElementType type) override {
    return Run("reduce-scatter", [&] {
      return ncclReduceScatter(in, out, count, NcclType(type), ncclSum, comm_,
                               stream_);
    });
  }

  absl::Status Broadcast(void* data, int64_t count, ElementType type,
                         int root) override {
    return Run("broadcast", [&] {
      return ncclBroadcast(data, data, count, NcclType(type), root, comm_,
                           stream_);
    });
  }

  absl::Status Barrier() override {
    if (barrier_ == nullptr) {
      ATOD_RETURN_IF_ERROR(
          cuda::ToStatus(cudaSetDevice(gpu_), "choosing the GPU"));
      ATOD_RETURN_IF_ERROR(cuda::ToStatus(
          cudaMalloc(&barrier_, sizeof(int64_t)), "making a barrier"));
      ATOD_RETURN_IF_ERROR(cuda::ToStatus(
          cudaMemset(barrier_, 0, sizeof(int64_t)), "making a barrier"));
    }
    return AllReduce(barrier_, 1, ElementType::kInt64, ReduceOp::kSum);
  }

  void Abort() override {
    {
      absl::MutexLock lock(&mutex_);
      if (aborted_) return;
      aborted_ = true;
    }
    // Ends NCCL's kernels on the stream and frees the communicator.
    ncclCommAbort(comm_);
  }

 private:
  static void OnDone(void* self) {
    auto* const communicator = static_cast<NcclCommunicator*>(self);
    absl::MutexLock lock(&communicator->mutex_);
    ++communicator->done_;
  }

  // Enqueues one operation and waits for its end, an error of NCCL's
  // background threads, Abort() or the time-out.
  template <typename Start>
  absl::Status Run(const char* what, Start start) {
    {
      absl::MutexLock lock(&mutex_);
      if (aborted_)
        return absl::AbortedError(
            absl::StrCat(what, ": the communicator was aborted"));
    }
    absl::Status status = cuda::ToStatus(cudaSetDevice(gpu_), what);
    if (status.ok()) status = ToStatus(start(), what);
    if (status.ok()) {
      ++started_;
      status = cuda::ToStatus(cudaLaunchHostFunc(stream_, &OnDone, this), what);
    }
    if (status.ok()) status = Wait(what);
    // A CUDA error of the operation itself.
    if (status.ok()) status = cuda::ToStatus(cudaStreamQuery(stream_), what);
    if (!status.ok()) Abort();
    return status;
  }

  absl::Status Wait(const char* what) {
    const absl::Time deadline = absl::Now() + timeout_;
    const auto over = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return aborted_ || done_ == started_;
    };
    absl::MutexLock lock(&mutex_);
    // NCCL reports a lost peer only to those who ask, so it is asked now and
    // then.
    while (!mutex_.AwaitWithTimeout(absl::Condition(&over), absl::Seconds(1))) {
      ncclResult_t result = ncclSuccess;
      ncclCommGetAsyncError(comm_, &result);
      ATOD_RETURN_IF_ERROR(ToStatus(result, what));
      if (absl::Now() > deadline)
        return absl::UnavailableError(absl::StrCat(
            what, ": not done after ", absl::FormatDuration(timeout_)));
    }
    if (done_ != started_)
      return absl::AbortedError(absl::StrCat(what, ": aborted"));
    return absl::OkStatus();
  }

  const int rank_;
  const int world_size_;
  const int gpu_;
  const absl::Duration timeout_;
  const ncclComm_t comm_;
  const cudaStream_t stream_;
  void* barrier_ = nullptr;  // one int64 of device memory
  uint64_t started_ = 0;
  absl::Mutex mutex_;
  uint64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

absl::Status MakeNcclToken(char* token) {
  ATOD_RETURN_IF_ERROR(CountGpus().status());
  ncclUniqueId id;
  ATOD_RETURN_IF_ERROR(ToStatus(ncclGetUniqueId(&id), "making an NCCL group"));
  std::memcpy(token, &id, sizeof(id));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Communicator>> JoinNccl(const char* token,
                                                       int rank, int world_size,
                                                       absl::Duration timeout) {
  ATOD_ASSIGN_OR_RETURN(const int gpus, CountGpus());
  const int gpu = rank % gpus;
  ATOD_RETURN_IF_ERROR(cuda::ToStatus(cudaSetDevice(gpu), "choosing the GPU"));
  ncclUniqueId id;
  std::memcpy(&id, token, sizeof(id));
  cudaStream_t stream;
  ATOD_RETURN_IF_ERROR(
      cuda::ToStatus(cudaStreamCreate(&stream), "making a CUDA stream"));
  ncclComm_t comm;
  const absl::Status joined = ToStatus(
      ncclCommInitRank(&comm, world_size, id, rank), "joining the NCCL group");
  if (!joined.ok()) {
    cudaStreamDestroy(stream);
    return joined;
  }
  return std::make_unique<NcclCommunicator>(rank, world_size, gpu, timeout,
                                            comm, stream);
}

}  // namespace atod::cuda
