#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "atod/v1/trajectory.pb.h"
#include "services/learner/step_data.h"

namespace atod::learner {

// Columns of accepted trajectories of one step. `teacher` names the scores
// that become teacher_logprob, empty for none. Trajectories may come in any
// order. INVALID_ARGUMENT when a span lacks its scores or temperatures differ.
absl::StatusOr<StepData> BuildStepData(
    const std::vector<v1::Trajectory>& trajectories,
    const std::string& teacher);

}  // namespace atod::learner
