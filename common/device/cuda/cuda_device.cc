#include "common/device/cuda/cuda_device.h"

#include <dlfcn.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda/advantage_kernels.h"

namespace atod::cuda {
namespace {

constexpr int kGpu = 0;

// One allocation of device memory that only grows, handed out in 256-byte
// steps between two calls of Reset.
class Arena {
 public:
  ~Arena() { cudaFree(base_); }

  static size_t Round(size_t bytes) { return (bytes + 255) / 256 * 256; }

  absl::Status Reset(size_t bytes) {
    used_ = 0;
    if (bytes <= size_) return absl::OkStatus();
    cudaFree(base_);
    base_ = nullptr;
    size_ = 0;
    ATOD_RETURN_IF_ERROR(ToStatus(
        cudaMalloc(&base_, bytes),
        absl::StrCat("allocating ", bytes, " bytes of device memory").c_str()));
    size_ = bytes;
    return absl::OkStatus();
  }

  template <typename T>
  T* Take(size_t count) {
    T* here = reinterpret_cast<T*>(static_cast<char*>(base_) + used_);
    used_ += Round(count * sizeof(T));
    return here;
  }

 private:
  void* base_ = nullptr;
  size_t size_ = 0;
  size_t used_ = 0;
};

class CudaDevice final : public DeviceBackend {
 public:
  CudaDevice(std::string name, cudaStream_t stream)
      : name_(std::move(name)), stream_(stream) {}
  ~CudaDevice() override { cudaStreamDestroy(stream_); }

  std::string name() const override { return name_; }

  absl::Status Statistics(const StatisticsInput& in,
                          StatisticsOutput* out) override {
    ATOD_RETURN_IF_ERROR(ToStatus(cudaSetDevice(kGpu), "choosing the GPU"));
    StatisticsColumns c;
    c.groups = static_cast<int32_t>(in.group_begin.size()) - 1;
    c.trajectories = static_cast<int32_t>(in.turn_begin.size()) - 1;
    c.turns = static_cast<int32_t>(in.token_begin.size()) - 1;
    ATOD_RETURN_IF_ERROR(arena_.Reset(BytesOf(in)));
    c.group = in.group;
    c.tdur = in.tdur;
    ATOD_RETURN_IF_ERROR(Upload(in.group_begin, &c.group_begin));
    ATOD_RETURN_IF_ERROR(Upload(in.group_member, &c.group_member));
    ATOD_RETURN_IF_ERROR(Upload(in.reward, &c.reward));
    ATOD_RETURN_IF_ERROR(Upload(in.turn_begin, &c.turn_begin));
    ATOD_RETURN_IF_ERROR(Upload(in.token_begin, &c.token_begin));
    ATOD_RETURN_IF_ERROR(Upload(in.old_logprob, &c.old_logprob));
    if (!in.teacher_logprob.empty())
      ATOD_RETURN_IF_ERROR(Upload(in.teacher_logprob, &c.teacher));
    c.flat = arena_.Take<uint8_t>(c.groups);
    c.grpo = arena_.Take<double>(in.reward.size());
    c.active = arena_.Take<uint8_t>(c.trajectories);
    for (double** column : {&c.d, &c.h, &c.d_norm, &c.h_norm, &c.w})
      *column = arena_.Take<double>(c.turns);

    ATOD_RETURN_IF_ERROR(
        ToStatus(LaunchStatistics(c, stream_), "launching statistics kernels"));

    ATOD_RETURN_IF_ERROR(Download(c.flat, c.groups, &out->flat));
    ATOD_RETURN_IF_ERROR(Download(c.grpo, in.reward.size(), &out->grpo));
    ATOD_RETURN_IF_ERROR(Download(c.active, c.trajectories, &out->active));
    ATOD_RETURN_IF_ERROR(Download(c.d, c.turns, &out->d));
    ATOD_RETURN_IF_ERROR(Download(c.h, c.turns, &out->h));
    ATOD_RETURN_IF_ERROR(Download(c.d_norm, c.turns, &out->d_norm));
    ATOD_RETURN_IF_ERROR(Download(c.h_norm, c.turns, &out->h_norm));
    ATOD_RETURN_IF_ERROR(Download(c.w, c.turns, &out->w));
    return ToStatus(cudaStreamSynchronize(stream_), "statistics kernels");
  }

  absl::Status Combine(const CombineInput& in,
                       std::vector<double>* advantage) override {
    ATOD_RETURN_IF_ERROR(ToStatus(cudaSetDevice(kGpu), "choosing the GPU"));
    const size_t tokens = in.token_begin.back();
    ATOD_RETURN_IF_ERROR(
        arena_.Reset(Arena::Round(in.token_begin.size() * sizeof(int32_t)) +
                     Arena::Round(in.weight.size() * sizeof(double)) +
                     Arena::Round(in.group_advantage.size() * sizeof(double)) +
                     2 * Arena::Round(tokens * sizeof(double))));
    CombineColumns c;
    c.turns = static_cast<int32_t>(in.token_begin.size()) - 1;
    c.kl_coef = in.kl_coef;
    c.token_weights = in.token_weights;
    c.rl_coef = in.rl_coef;
    ATOD_RETURN_IF_ERROR(Upload(in.token_begin, &c.token_begin));
    ATOD_RETURN_IF_ERROR(Upload(in.weight, &c.weight));
    if (!in.signal.empty()) ATOD_RETURN_IF_ERROR(Upload(in.signal, &c.signal));
    ATOD_RETURN_IF_ERROR(Upload(in.group_advantage, &c.group_advantage));
    c.advantage = arena_.Take<double>(tokens);
    ATOD_RETURN_IF_ERROR(
        ToStatus(LaunchCombine(c, stream_), "launching the combine kernel"));
    ATOD_RETURN_IF_ERROR(Download(c.advantage, tokens, advantage));
    return ToStatus(cudaStreamSynchronize(stream_), "combine kernel");
  }

 private:
  // What a call of Statistics takes from the arena.
  static size_t BytesOf(const StatisticsInput& in) {
    const size_t groups = in.group_begin.size();
    const size_t items = in.reward.size();
    const size_t trajectories = in.turn_begin.size();
    const size_t turns = in.token_begin.size();
    const size_t tokens = in.old_logprob.size();
    return Arena::Round(groups * sizeof(int32_t)) + Arena::Round(groups) +
           Arena::Round(items * sizeof(int32_t)) +
           2 * Arena::Round(items * sizeof(double)) +
           Arena::Round(trajectories * sizeof(int32_t)) +
           Arena::Round(trajectories) + Arena::Round(turns * sizeof(int32_t)) +
           5 * Arena::Round(turns * sizeof(double)) +
           2 * Arena::Round(tokens * sizeof(double));
  }

  template <typename T>
  absl::Status Upload(absl::Span<const T> host, const T** device) {
    T* there = arena_.Take<T>(host.size());
    *device = there;
    return ToStatus(cudaMemcpyAsync(there, host.data(), host.size() * sizeof(T),
                                    cudaMemcpyHostToDevice, stream_),
                    "copying to the GPU");
  }

  template <typename T>
  absl::Status Download(const T* device, size_t count, std::vector<T>* host) {
    host->resize(count);
    return ToStatus(cudaMemcpyAsync(host->data(), device, count * sizeof(T),
                                    cudaMemcpyDeviceToHost, stream_),
                    "copying from the GPU");
  }

  const std::string name_;
  const cudaStream_t stream_;
  Arena arena_;
};

// Models run on the GPU through torch, which finds its CUDA half only when the
// library is in the process.
absl::Status LoadTorchCuda() {
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr)
    return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("libtorch_cuda.so: cannot be loaded: ", dlerror(),
                   "; expected LibTorch's CUDA libraries (deploy/setup.sh "
                   "--cuda fetches them)"));
}

}  // namespace

absl::Status ToStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": ", cudaGetErrorName(error),
                                          ": ", cudaGetErrorString(error)));
}

absl::StatusOr<int> CountGpus() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    return absl::FailedPreconditionError(absl::StrCat(
        "device: found ",
        driver == 0 ? std::string("no NVIDIA driver")
                    : absl::StrCat("an NVIDIA driver for CUDA ", driver / 1000,
                                   ".", driver % 1000 / 10),
        ", expected a driver for CUDA ", CUDART_VERSION / 1000, ".",
        CUDART_VERSION % 1000 / 10, " or newer"));
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
    return absl::FailedPreconditionError(
        "device: found an NVIDIA driver but no GPU, expected at least one "
        "(CUDA_VISIBLE_DEVICES may hide it)");
  if (error != cudaSuccess)
    return absl::FailedPreconditionError(absl::StrCat(
        "device: found ", cudaGetErrorName(error), " (",
        cudaGetErrorString(error), "), expected a working NVIDIA GPU"));
  return count;
}

absl::StatusOr<std::unique_ptr<DeviceBackend>> OpenCudaDevice() {
  ATOD_RETURN_IF_ERROR(CountGpus().status());
  ATOD_RETURN_IF_ERROR(LoadTorchCuda());
  ATOD_RETURN_IF_ERROR(ToStatus(cudaSetDevice(kGpu), "choosing the GPU"));
  cudaDeviceProp properties;
  ATOD_RETURN_IF_ERROR(ToStatus(cudaGetDeviceProperties(&properties, kGpu),
                                "asking for the GPU's properties"));
  cudaStream_t stream;
  ATOD_RETURN_IF_ERROR(
      ToStatus(cudaStreamCreate(&stream), "making a CUDA stream"));
  return std::make_unique<CudaDevice>(
      absl::StrCat("cuda:", kGpu, " (", properties.name, ")"), stream);
}

}  // namespace atod::cuda
