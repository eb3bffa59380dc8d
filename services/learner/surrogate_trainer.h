#pragma once

#include <map>
#include <string>

#include "services/learner/algorithm/aux_loss.h"
#include "services/learner/algorithm/surrogate.h"

namespace at {
class Tensor;
}

namespace atod::learner {

// What the losses saw, as sums, so that micro-batches and ranks add up.
struct SurrogateStats {
  double tokens = 0;
  double loss = 0;          // sum of weight * token loss
  double clipped = 0;       // tokens whose gradient a clip took
  double dual_clipped = 0;  // of these, by the dual clip
  double kl = 0;            // sum of ratio - 1 - log ratio, an estimate of
                            // KL(pi_old || pi_theta)
  double ratio = 0;         // sum
  double ratio_max = 0;     // largest, not a sum
  // Sums of weight * term, before their coefficients.
  double entropy = 0, reference_kl = 0, sdar = 0;

  void Add(const SurrogateStats& other);
  // actor/* of `updates` updates; nothing without a token.
  void PutMetrics(double updates, const AuxOptions& aux,
                  std::map<std::string, double>& metrics) const;
};

// Differentiable clipped surrogate of Algorithm 1, the twin of
// ClippedSurrogate: sum over tokens of weight * -min(ratio A, clip(ratio) A).
// All tensors are [num_tokens] of one floating type on one device; float32 in
// training. Only `current`, log pi_theta, gets a gradient: `old`, `advantage`
// and `weight` (TokenLossWeights) are constants, detached here whatever made
// them. `turn`, int64, numbers the turns from 0 (options.turn_ratio only).
// Returns a scalar; throws what torch throws. Adds to `stats`.
at::Tensor SurrogateLoss(const at::Tensor& current, const at::Tensor& old,
                         const at::Tensor& advantage, const at::Tensor& weight,
                         const at::Tensor& turn,
                         const SurrogateOptions& options,
                         SurrogateStats* stats);

// The losses beside it, the twins of KlTerm and SdarTerm, times weight and
// coefficients: -entropy_coef * entropy + kl_coef * KL to the reference +
// sdar_lambda * SDAR. `entropy` (differentiable), `reference` and `context`
// may be undefined where their coefficient is 0.
at::Tensor AuxLoss(const at::Tensor& current, const at::Tensor& entropy,
                   const at::Tensor& reference, const at::Tensor& context,
                   const at::Tensor& weight, const AuxOptions& options,
                   SurrogateStats* stats);

}  // namespace atod::learner
