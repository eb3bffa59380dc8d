#pragma once

#include <map>
#include <string>

namespace at {
class Tensor;
}

namespace atod::learner {

// What the surrogate saw, as sums, so that micro-batches and ranks add up.
struct SurrogateStats {
  double tokens = 0;
  double loss = 0;       // sum of weight * token loss
  double clipped = 0;    // tokens whose gradient the clip took
  double kl = 0;         // sum of ratio - 1 - log ratio, an estimate of
                         // KL(pi_old || pi_theta)
  double ratio = 0;      // sum
  double ratio_max = 0;  // largest, not a sum

  void Add(const SurrogateStats& other);
  // actor/loss, actor/clip_fraction, actor/approx_kl, actor/ratio_mean and
  // actor/ratio_max; nothing without a token.
  void PutMetrics(std::map<std::string, double>& metrics) const;
};

// Differentiable clipped surrogate of Algorithm 1, the twin of
// ClippedSurrogate: sum over tokens of weight * -min(ratio A, clip(ratio) A).
// All tensors are [num_tokens] of one floating type on one device; float32 in
// training. Only `current`, log pi_theta, gets a gradient: `old`, `advantage`
// and `weight` (TokenLossWeights) are constants, detached here whatever made
// them. Returns a scalar; throws what torch throws. `stats` is overwritten.
at::Tensor SurrogateLoss(const at::Tensor& current, const at::Tensor& old,
                         const at::Tensor& advantage, const at::Tensor& weight,
                         double clip_low, double clip_high,
                         SurrogateStats* stats);

}  // namespace atod::learner
