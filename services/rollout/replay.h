#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "atod/v1/trajectory.pb.h"
#include "common/base/clock.h"
#include "common/engine/engine.h"
#include "common/metrics/metrics.h"
#include "common/tokenizer/tokenizer.h"
#include "services/envs/env_caller.h"
#include "services/rollout/agent_loop.h"
#include "services/teacher/teacher_caller.h"

namespace atod::rollout {

// Plays stored trajectories again, one after the other, each alone in the
// engine.
class Replayer {
 public:
  // Nothing is owned. `teachers` may be null: no scores then.
  Replayer(engine::Engine& engine, envs::EnvCaller& envs,
           const Tokenizer& tokenizer, teacher::TeacherCaller* teachers,
           uint32_t max_context);

  // The engine must have the weights that `stored` was played with.
  absl::StatusOr<v1::Trajectory> Play(const v1::Trajectory& stored);

 private:
  RealClock clock_;
  metrics::Registry registry_;
  const bool scores_;
  AgentLoop loop_;
};

// The first difference in prompts, sampled tokens, log-probs (bits), teacher
// scores (bits; unless `replayed` has none), actions, observations or outcome,
// in the order of play; empty when there is none. Times and workers may differ.
// With `before_error`, of a stored one that ended in an error only what it had
// played counts.
std::string FirstDifference(const v1::Trajectory& stored,
                            const v1::Trajectory& replayed,
                            bool before_error = false);

}  // namespace atod::rollout
