#include "services/learner/algorithm/aux_loss.h"

#include <cmath>

namespace atod::learner {

TokenLoss KlTerm(double student, double reference, KlEstimator estimator) {
  const double x = student - reference;
  switch (estimator) {
    case KlEstimator::kK1:
      return {x, 1, false};
    case KlEstimator::kK2:
      return {x * x / 2, x, false};
    case KlEstimator::kK3:
      return {std::exp(-x) - 1 + x, 1 - std::exp(-x), false};
  }
  return {};
}

TokenLoss SdarTerm(double current, double context, double beta) {
  const double gap = context - current;
  const double gate = 1 / (1 + std::exp(-beta * gap));
  return {gate * gap, -gate, false};
}

}  // namespace atod::learner
