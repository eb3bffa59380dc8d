#pragma once

#include "absl/status/status.h"
#include "atod/v1/learner.pb.h"
#include "atod/v1/trajectory.pb.h"

namespace atod::learner {

// EpisodeError.kind.
inline constexpr const char* kErrorKinds[] = {
    "prompt", "template", "environment", "task", "teacher", "engine"};

// Whether the episode could not be played to an end of its own: such a
// trajectory is never a result.
inline bool EndedInError(const v1::Trajectory& trajectory) {
  return trajectory.outcome().done_reason() == v1::ERROR;
}

struct TrajectoryLimits {
  uint32_t vocab_size = 0;
  uint32_t max_context = 0;  // tokens of a sequence; 0: unchecked
};

// Whether a submitted trajectory is what `lease` asked for and can be trained
// on: same task, ids in the vocabulary, spans inside their sequences, finite
// log-probs <= 0 for every sampled token from the student and every teacher of
// the lease, sampled with weights the lease allows. One that ended in ERROR
// must say why, and its sequences are not looked at. INVALID_ARGUMENT carries a
// Problem that names the field; the identity (run, step, group, sample) is
// checked elsewhere.
absl::Status CheckTrajectory(const v1::Trajectory& trajectory,
                             const v1::Lease& lease,
                             const TrajectoryLimits& limits);

}  // namespace atod::learner
