#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/device.h"

namespace atod::cuda {

// INTERNAL with what was done and CUDA's name and text of the error.
absl::Status ToStatus(cudaError_t error, const char* what);

// GPUs of this machine; FAILED_PRECONDITION without a driver or a GPU.
absl::StatusOr<int> CountGpus();

// GPU 0. Copies a step's columns there, runs the kernels, copies back.
absl::StatusOr<std::unique_ptr<DeviceBackend>> OpenCudaDevice();

}  // namespace atod::cuda
