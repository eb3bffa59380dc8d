#pragma once

#include <cstdint>

namespace atod::model {

// Compute threads of this process's models; 0: one for each CPU that it may use
// (AvailableCpus). Call it in main, before the first model.
void SetComputeThreads(uint32_t threads);

}  // namespace atod::model
