#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/kernels.h"

namespace atod::learner {

// How token losses become one loss.
enum class Aggregation {
  kTrajectory,  // mean over a trajectory's tokens, then over trajectories
  kToken,       // one mean over all tokens of the update
};

// Section `algorithm` of the configuration as plain values; the names are the
// same, defaults are the paper's Table 2 where it has one.
struct AlgorithmOptions {
  std::string recipe = "atod";      // atod, opd or grpo
  std::string profile = "default";  // paper or default
  double kl_coef_init = 1.0;
  double kl_coef_min = 0.1;
  double rl_coef_init = 1.0;
  double rl_coef_max = 2.0;
  int coef_anneal_steps = 80;
  double invalid_action_penalty = 0.1;
  std::optional<int> tdur_min_turns;          // unset: the profile's value
  std::optional<double> tdur_min_divergence;  // unset: the profile's value
  bool tdur_weights = true;                   // false: w = 1 everywhere
  double clip_low = 0.2;
  double clip_high = 0.2;
  Aggregation aggregation = Aggregation::kTrajectory;
};

// A coefficient over training: linear from `init` at s = 0 to `end` at s =
// `anneal_steps`, then constant (Eq. 10-12). A constant has init == end.
struct Schedule {
  double init = 0;
  double end = 0;
  int anneal_steps = 1;

  // `step` is s. Training counts steps from 1, so s = 0 is never trained with.
  double At(int step) const;
};

// Where an invalid action's penalty is taken off the episode's reward.
enum class PenaltyScope {
  kEveryGroup,         // it is part of R(tau)
  kWhereRewardVaries,  // not in groups whose rewards are all equal
};

// A named method as a set of pieces:
//   A_t = kl(s) * w_k * (log pi_T - log pi_old)  +  rl(s) * A_grpo
// with w_k from T-DUR or 1.
struct Recipe {
  bool needs_teacher = false;
  Schedule kl;
  Schedule rl;
  kernels::TdurOptions tdur;
  PenaltyScope penalty_scope = PenaltyScope::kWhereRewardVaries;
};

// The pieces that `options` name. INVALID_ARGUMENT with the configuration's
// field for an unknown recipe or profile, or a value out of range.
//
// Recipes: `atod` anneals both coefficients and weighs turns by T-DUR; `opd` is
// the distillation signal alone with the constant kl_coef_init and w = 1;
// `grpo` is the reward alone with the constant rl_coef_init.
// Profiles: `paper` is the printed equations. `default` is the same with
// T-DUR's guards (3 turns, divergence 0.01), which only remove degenerate
// cases, and without the penalty in groups whose rewards are all equal, where
// Eq. 2 would blow the penalty alone up to an advantage of full scale.
absl::StatusOr<Recipe> MakeRecipe(const AlgorithmOptions& options);

}  // namespace atod::learner
