#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/learner/algorithm/advantages.h"
#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

// What a learner computed of a step that it trained, beside the trajectories
// (AdvantageFile): one JSON object a trajectory. `updates` has the rows of the
// batch that each update took.
absl::Status WriteAdvantages(const std::string& path, const StepBatch& batch,
                             const Advantages& advantages,
                             const std::vector<std::vector<int32_t>>& updates);

// Numbers that the file lacks are NaN.
struct StoredTurn {
  uint32_t index = 0;
  double d = 0, h = 0, w = 0;
  std::vector<double> advantages;  // of its tokens; none: nothing to weigh
};
struct StoredAdvantages {
  std::string id;     // FormatId
  double update = 0;  // that it went into, from 0
  double grpo_advantage = 0;
  std::vector<StoredTurn> turns;
};

// INVALID_ARGUMENT names file and line.
absl::StatusOr<std::vector<StoredAdvantages>> ReadAdvantages(
    const std::string& path);

}  // namespace atod::learner
