#include "common/model/peak_memory.h"

#include <sys/resource.h>

#include "c10/core/CachingDeviceAllocator.h"

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

}  // namespace atod::model
