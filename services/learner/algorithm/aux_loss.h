#pragma once

#include "services/learner/algorithm/token_loss.h"

namespace atod::learner {

// What estimates KL(student || reference) from a sampled token, see KlTerm.
enum class KlEstimator { kK1, kK2, kK3 };

// Losses beside the surrogate. They are no advantages: neither ratio nor clip
// touches them. Each is aggregated like the surrogate.
struct AuxOptions {
  double entropy_coef = 0;  // bonus: -coef * entropy
  double kl_coef = 0;       // KL to the reference model
  KlEstimator kl_estimator = KlEstimator::kK3;
  double sdar_lambda = 0;
  double sdar_beta = 0;
};

// An estimate of KL(student || reference) from one token sampled by the
// student, x = log pi - log pi_ref:
//   k1  x              unbiased; as a loss its expected gradient is 0
//   k2  x^2 / 2        as a loss its expected gradient is the KL's
//   k3  exp(-x) - 1 + x  unbiased and never negative
// with the derivative by log pi.
TokenLoss KlTerm(double student, double reference, KlEstimator estimator);

// SDAR for one token: g (log pi_teach - log pi_theta) with the gate g =
// sigmoid(beta (log pi_teach - log pi_theta)), a constant, where pi_teach is
// the old policy that also sees the alternative context. The gradient by log
// pi_theta is -g: every sampled token becomes likelier, more so where the
// context likes it. With beta = 0 it is -1/2 whatever the context says.
// Without lambda.
TokenLoss SdarTerm(double current, double context, double beta);

}  // namespace atod::learner
