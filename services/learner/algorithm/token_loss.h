#pragma once

namespace atod::learner {

// The loss of one token and its derivative by log pi_theta; all else is
// constant.
struct TokenLoss {
  double loss = 0;
  double gradient = 0;
  bool clipped = false;       // a clip took the gradient
  bool dual_clipped = false;  // it was the dual clip
};

}  // namespace atod::learner
