#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "atod/v1/trajectory.pb.h"
#include "services/teacher/scorer.h"

namespace atod::rollout {

// What T-DUR sees at one turn position, over the trajectories that reach it:
// means, and standard errors of the means (0 for one sample).
struct TurnDiagnosis {
  uint32_t turn = 0;  // from 0
  uint32_t samples = 0;
  double d = 0, d_stderr = 0;  // Eq. 13, nats
  double h = 0, h_stderr = 0;  // Eq. 14, nats
  double w = 0, w_stderr = 0;  // Eq. 16
};

// Scores every turn of `episodes` under the student and the teacher, at the
// temperature it was sampled with, and weighs it as the learner does with
// recipe `atod` and `profile`; by turn position, ascending. Turns without
// tokens are left out.
absl::StatusOr<std::vector<TurnDiagnosis>> Diagnose(
    const std::vector<v1::Trajectory>& episodes, teacher::Scorer& student,
    teacher::Scorer& teacher, const std::string& profile);

}  // namespace atod::rollout
