#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "services/learner/algorithm/options.h"
#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

// -min(ratio A, clip(ratio, 1 - low, 1 + high) A) of Algorithm 1 for one token,
// with ratio = pi_theta / pi_old, and its derivative by log pi_theta (A and
// pi_old are constants). Reference of surrogate_trainer.h.
struct TokenLoss {
  double loss = 0;
  double gradient = 0;   // d loss / d log pi_theta
  bool clipped = false;  // the clipped branch is the smaller one
};
TokenLoss ClippedSurrogate(double ratio, double advantage, double clip_low,
                           double clip_high);

// What each token's loss is multiplied by so that the sum is the update's loss,
// [tokens] of the batch, 0 outside `trajectories`, the rows of one optimiser
// update. Depends on the update as a whole and on nothing smaller, so that any
// split into micro-batches or over ranks sums to the same loss. Trajectories
// without tokens do not count. The weights of an update add up to 1.
std::vector<double> TokenLossWeights(const StepBatch& batch,
                                     absl::Span<const int32_t> trajectories,
                                     Aggregation aggregation);

}  // namespace atod::learner
