#include "services/learner/algorithm/surrogate.h"

#include <algorithm>
#include <cmath>

namespace atod::learner {

TokenLoss ClippedSurrogate(double ratio, double advantage,
                           const SurrogateOptions& options) {
  const double plain = ratio * advantage;
  const double clipped =
      std::clamp(ratio, 1 - options.clip_low, 1 + options.clip_high) *
      advantage;
  // Not <=: equal sides are every token of a first update, not a clip.
  if (clipped < plain) return {-clipped, 0, true};
  if (options.dual_clip > 0 && advantage < 0 && ratio > options.dual_clip)
    return {-options.dual_clip * advantage, 0, true, true};
  // d ratio / d log pi_theta = ratio.
  return {-plain, -plain, false};
}

double ImportanceWeight(double old_logprob, double rollout_logprob,
                        double cap) {
  return std::min(std::exp(old_logprob - rollout_logprob), cap);
}

}  // namespace atod::learner
