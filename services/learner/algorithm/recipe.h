#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/kernels.h"
#include "services/learner/algorithm/options.h"
#include "services/learner/algorithm/reward_transform.h"
#include "services/learner/algorithm/rollout_policy.h"
#include "services/learner/algorithm/signal.h"
#include "services/learner/algorithm/surrogate.h"
#include "services/learner/algorithm/token_weights.h"
#include "services/learner/algorithm/weights/modifiers.h"
#include "services/learner/algorithm/weights/weight_piece.h"

namespace atod::learner {

// A coefficient over training: linear from `init` at s = 0 to `end` at s =
// `anneal_steps`, then constant (Eq. 10-12). A constant has init == end.
struct Schedule {
  double init = 0;
  double end = 0;
  int anneal_steps = 1;

  // `step` is s. Training counts steps from 1, so s = 0 is trained with only
  // when algorithm.first_step is 0.
  double At(int step) const;
};

// A named method as a set of pieces:
//   A_t = kl(s) * weight * signal_t  +  rl(s) * group advantage
// inside a clipped surrogate, with losses beside it.
struct Recipe {
  bool needs_teacher = false;    // scores of a teacher
  bool needs_reference = false;  // scores of the reference model
  bool needs_context = false;    // own scores under the alternative context
  Schedule kl;
  Schedule rl;
  RewardOptions reward;
  int duplicate_rows_to = 0;  // 0: never
  SignalOptions signal;
  kernels::TdurOptions tdur;
  WeightPiece weight;
  WeightModifiers modifiers;
  SurrogateOptions surrogate;
  AuxOptions aux;
  AggregationOptions aggregation;
  RolloutPolicy rollout;
};

// The pieces that `options` name. INVALID_ARGUMENT with the configuration's
// field for an unknown name, a value out of range, or one that is missing.
//
// docs/recipes has every recipe and docs/decisions/0003 every difference
// between the profiles. `paper` is the printed equations. `default` is the same
// with T-DUR's guards (3 turns, divergence 0.01), which only remove degenerate
// cases, and without the penalty in groups whose rewards are all equal, where
// Eq. 2 would blow the penalty alone up to an advantage of full scale.
// `released` is what the authors' code does.
absl::StatusOr<Recipe> MakeRecipe(const AlgorithmOptions& options);

}  // namespace atod::learner
