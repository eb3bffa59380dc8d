#include "services/learner/algorithm/surrogate.h"

#include <algorithm>

namespace atod::learner {

TokenLoss ClippedSurrogate(double ratio, double advantage, double clip_low,
                           double clip_high) {
  const double plain = ratio * advantage;
  const double clipped =
      std::clamp(ratio, 1 - clip_low, 1 + clip_high) * advantage;
  if (clipped < plain) return {-clipped, 0, true};
  // d ratio / d log pi_theta = ratio.
  return {-plain, -plain, false};
}

std::vector<double> TokenLossWeights(const StepBatch& batch,
                                     absl::Span<const int32_t> trajectories,
                                     Aggregation aggregation) {
  std::vector<double> weight(batch.num_tokens(), 0.0);
  const auto tokens_of = [&](int32_t i) {
    return kernels::Range{batch.token_begin[batch.turn_begin[i]],
                          batch.token_begin[batch.turn_begin[i + 1]]};
  };
  double filled = 0;
  double all_tokens = 0;
  for (int32_t i : trajectories) {
    const kernels::Range tokens = tokens_of(i);
    filled += tokens.end > tokens.begin;
    all_tokens += tokens.end - tokens.begin;
  }
  for (int32_t i : trajectories) {
    const kernels::Range tokens = tokens_of(i);
    const double share =
        aggregation == Aggregation::kToken
            ? 1 / all_tokens
            : 1 / (filled * static_cast<double>(tokens.end - tokens.begin));
    std::fill(weight.begin() + tokens.begin, weight.begin() + tokens.end,
              share);
  }
  return weight;
}

}  // namespace atod::learner
