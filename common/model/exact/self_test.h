#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace atod::model {

// One operation on fixed random inputs, computed in several ways whose results
// must be equal to the bit: other batches, chunks, threads.
struct SelfTestOperation {
  std::string name;
  int ways = 1;
  std::function<std::vector<float>(int way)> run;
};

// What rollout, teacher and learner compute with the CPU kernels, the simple
// operations first, so that a failure names the smallest broken one.
std::vector<SelfTestOperation> KernelOperations();

// FAILED_PRECONDITION names the first operation whose bits differ and this
// machine's CPU.
absl::Status RunSelfTest(const std::vector<SelfTestOperation>& operations);

}  // namespace atod::model
