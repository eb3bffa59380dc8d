#pragma once

#include <vector>

#include "services/learner/algorithm/groups.h"
#include "services/learner/algorithm/options.h"
#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

// R(tau) as the group statistics see it, [trajectories]: the environment's
// reward minus `penalty` for each turn with an invalid action, where `scope`
// says that the penalty counts.
std::vector<double> PenalizedRewards(const StepBatch& batch,
                                     const GroupIndex& groups, double penalty,
                                     PenaltyScope scope);

}  // namespace atod::learner
