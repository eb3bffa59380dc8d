#include "common/model/peak_memory.h"

#include <sys/resource.h>

#include "ATen/Context.h"
#include "absl/status/statusor.h"
#include "c10/core/CachingDeviceAllocator.h"
#include "common/device/plugin.h"
#include "common/model/torch_status.h"

namespace atod::model {

int64_t PeakBytes(const std::string& device) {
  if (device == "cpu") {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return int64_t{usage.ru_maxrss} * 1024;
  }
  constexpr size_t kAll = 0;  // of the allocator's kinds of statistics
  return at::getDeviceAllocator(at::kCUDA)
      ->getDeviceStats(0)
      .allocated_bytes[kAll]
      .peak;
}

int64_t GpuBytes() {
  // Before torch is asked for a GPU: it keeps its first answer.
  if (!LoadDevicePlugin().ok() || !CheckDevice("cuda").ok()) return 0;
  const auto bytes = CatchTorch("gpu", []() -> absl::StatusOr<int64_t> {
    at::globalContext().lazyInitDevice(at::kCUDA);
    return at::getDeviceAllocator(at::kCUDA)->getMemoryInfo(0).second;
  });
  return bytes.value_or(0);
}

}  // namespace atod::model
