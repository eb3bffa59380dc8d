#include "common/model/threads.h"

#include "ATen/Parallel.h"
#include "common/base/cpus.h"

namespace atod::model {

void SetComputeThreads(uint32_t threads) {
  at::set_num_threads(
      static_cast<int>(threads > 0 ? threads : AvailableCpus()));
}

}  // namespace atod::model
