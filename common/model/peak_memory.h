#pragma once

#include <cstdint>
#include <string>

namespace atod::model {

// Most memory that was in use at a time, in bytes: of this process's resident
// memory for "cpu", of torch's allocator for a device as BackEnd names it.
int64_t PeakBytes(const std::string& device);

// Bytes of the GPU that "cuda" means; 0 when there is none.
int64_t GpuBytes();

}  // namespace atod::model
