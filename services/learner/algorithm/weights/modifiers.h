#pragma once

#include <vector>

#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

// What happens to the weights of any piece before they are used, in this
// order. Neutral values change nothing, to the bit.
struct WeightModifiers {
  // Below 1: in every trajectory all but the top ceil(kept_fraction K) of its
  // K weights become 0; those equal to the least kept one stay.
  double kept_fraction = 1;
  // Above 0: w' = (1 - floor) w + floor.
  double floor = 0;
  // In every trajectory: divide by the token-weighted mean, clip to [0.5, 2],
  // divide by the mean again, so that the mean weight is 1.
  bool mean_preserving = false;
  // c above 0: times sigmoid((1 + s/c - k + 0.5) / softness), clipped to [0.05,
  // 1], with k the turn's place from 0: later turns join as training goes on.
  int curriculum_steps = 0;
  double curriculum_softness = 1;
};

// `weight` is [turns], or [tokens] with `per_token`; `step` is s. Turns without
// tokens keep 0.
void ModifyWeights(const StepBatch& batch, const WeightModifiers& modifiers,
                   bool per_token, int step, std::vector<double>& weight);

}  // namespace atod::learner
