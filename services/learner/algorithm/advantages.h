#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "services/learner/algorithm/recipe.h"
#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

struct Advantages {
  double kl_coef = 0;  // kappa(s)
  double rl_coef = 0;  // rho(s)
  // Per trajectory; means over its turns when the statistics run over turns.
  std::vector<double> shaped_reward;  // R(tau) with penalties, Eq. 2's r
  std::vector<double> grpo;           // A_i, Eq. 2
  // Per turn. 0 for turns without tokens; d, d_norm are 0 without a teacher. w
  // is the mean over the turn's tokens when the weights are those of tokens.
  std::vector<double> d, h, d_norm, h_norm, w;
  std::vector<double> group_advantage;  // the turn's own A, with penalties
  // Per token.
  std::vector<double> token_w;    // empty unless the weights are of tokens
  std::vector<double> advantage;  // A_t, a constant of the loss
  // The step's metrics by TensorBoard tag. A tag is absent when its value is
  // undefined (a ratio over 0, a mean over nothing).
  std::map<std::string, double> metrics;
};

// Advantages of all tokens of a step (Eq. 2, 8-16), from the whole step before
// any padding, packing or sharding: every rank computes the same. The
// coefficients are the step's, which need not be those of the recipe's
// schedules. INVALID_ARGUMENT names the column at fault.
absl::StatusOr<Advantages> ComputeAdvantages(const StepBatch& batch,
                                             const Recipe& recipe,
                                             const Coefficients& coefficients,
                                             DeviceBackend& device);

// A_t of row t, a token of turn k, as an update sees it whose model gives the
// row the log-prob `current`: advantages.advantage[t], or with delta_student
// current kappa w Delta + rho A with that log-prob in Delta.
double AdvantageAt(const StepBatch& batch, const Advantages& advantages,
                   const SignalOptions& signal, int32_t k, int32_t t,
                   double current);

// Offsets monotonous, columns of one length, log-probs finite, IsReward.
absl::Status ValidateBatch(const StepBatch& batch);

}  // namespace atod::learner
