#pragma once

#include <algorithm>
#include <string>

#include "common/device/kernels.h"
#include "services/learner/algorithm/aux_loss.h"
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
  double At(int step) const {
    const double progress = std::min(
        static_cast<double>(step) / static_cast<double>(anneal_steps), 1.0);
    if (progress >= 1.0) return end;
    return init + (end - init) * progress;
  }
};

// What a recipe's schedules say at s.
struct Coefficients {
  int s = 1;      // for the soft curriculum
  double kl = 0;  // kappa (Eq. 11)
  double rl = 0;  // rho (Eq. 12)
};

// A named method as a set of pieces:
//   A_t = kl(s) * weight * signal_t  +  rl(s) * group advantage
// inside a clipped surrogate, with losses beside it. RecipeOf (recipe_of.h)
// makes it from a configuration.
struct Recipe {
  std::string name;              // of algorithm.recipe, for messages
  bool needs_teacher = false;    // scores of a teacher
  bool needs_reference = false;  // scores of the reference model
  bool needs_context = false;    // own scores under the alternative context
  Schedule kl;
  Schedule rl;
  int first_step = 1;  // s of the first training step
  RewardOptions reward;
  int duplicate_rows_to = 0;  // 0: never
  SignalOptions signal;
  kernels::TdurOptions tdur;
  WeightPiece weight;
  WeightOptions weights;
  WeightModifiers modifiers;
  SurrogateOptions surrogate;
  AuxOptions aux;
  AggregationOptions aggregation;
  RolloutPolicy rollout;

  Coefficients At(int s) const { return {s, kl.At(s), rl.At(s)}; }
};

}  // namespace atod::learner
