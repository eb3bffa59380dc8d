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
  if (clipped < plain) return {-clipped, 0, true};
  if (options.dual_clip > 0 && advantage < 0 && ratio > options.dual_clip)
    return {-options.dual_clip * advantage, 0, true};
  // d ratio / d log pi_theta = ratio.
  return {-plain, -plain, false};
}

std::vector<double> Ratios(const StepBatch& batch,
                           const std::vector<double>& current_logprob,
                           const SurrogateOptions& options) {
  std::vector<double> log_ratio(current_logprob.size());
  for (size_t t = 0; t < log_ratio.size(); ++t)
    log_ratio[t] = current_logprob[t] - batch.old_logprob[t];
  if (options.turn_ratio) {
    for (int k = 0; k < batch.num_turns(); ++k) {
      const int32_t begin = batch.token_begin[k],
                    end = batch.token_begin[k + 1];
      double sum = 0;
      for (int32_t t = begin; t < end; ++t) sum += log_ratio[t];
      for (int32_t t = begin; t < end; ++t) log_ratio[t] = sum / (end - begin);
    }
  }
  for (double& x : log_ratio) x = std::exp(x);
  return log_ratio;
}

double ImportanceWeight(double old_logprob, double rollout_logprob,
                        double cap) {
  return std::min(std::exp(old_logprob - rollout_logprob), cap);
}

}  // namespace atod::learner
