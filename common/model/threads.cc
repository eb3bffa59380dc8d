#include "common/model/threads.h"

#include <algorithm>
#include <thread>

#include "ATen/Parallel.h"

namespace atod::model {

void SetComputeThreads(uint32_t threads) {
  const uint32_t cores = std::max(1u, std::thread::hardware_concurrency());
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : cores));
}

}  // namespace atod::model
