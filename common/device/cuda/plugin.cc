#include "common/device/plugin.h"

#include "common/device/cuda/cuda_device.h"
#include "common/device/cuda/nccl_communicator.h"

extern "C" __attribute__((visibility("default"))) const atod::DevicePlugin*
AtodDevicePlugin() {
  static constexpr atod::DevicePlugin kPlugin = {
      .version = atod::DevicePlugin::kVersion,
      .open_device = &atod::cuda::OpenCudaDevice,
      .make_join_token = &atod::cuda::MakeNcclToken,
      .make_communicator = &atod::cuda::JoinNccl,
  };
  return &kPlugin;
}
