#pragma once

#include "services/learner/algorithm/token_loss.h"

namespace atod::learner {

struct SurrogateOptions {
  double clip_low = 0.2;
  double clip_high = 0.2;
  double dual_clip = 0;       // c, at least 1; 0: off
  bool turn_ratio = false;    // one ratio a turn (GSPO) instead of one a token
  double importance_cap = 0;  // of pi_old / pi_rollout; 0: no such weight
};

// -min(ratio A, clip(ratio, 1 - low, 1 + high) A) of Algorithm 1 for one token,
// with ratio = pi_theta / pi_old, and its derivative by log pi_theta (A and
// pi_old are constants). With dual_clip the loss of a negative A is at most
// -c A.
TokenLoss ClippedSurrogate(double ratio, double advantage,
                           const SurrogateOptions& options);

// Truncated importance weight min(pi_old / pi_rollout, cap) of one token, for
// rollouts of another engine or older weights.
double ImportanceWeight(double old_logprob, double rollout_logprob, double cap);

}  // namespace atod::learner
