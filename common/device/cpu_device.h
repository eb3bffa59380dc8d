#pragma once

#include <memory>

#include "common/device/device.h"

namespace atod {

// The plain loop. Never fails.
std::unique_ptr<DeviceBackend> MakeCpuDevice();

}  // namespace atod
