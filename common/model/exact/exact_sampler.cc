#include "common/model/exact/exact_sampler.h"

#include <algorithm>
#include <numeric>

#include "common/model/exact/cpu_kernels.h"

namespace atod::model {

SampledToken ExactSampler::Sample(const float* logits, int64_t vocab_size,
                                  const Sampling& params) {
  const float inv = params.temperature > 0 ? 1.0f / params.temperature : 1.0f;
  const float lse = LogSumExp(vocab_size, logits, inv);
  const auto result = [&](int64_t token) -> SampledToken {
    // Rounding may put the log-prob of a sure token above 0.
    return {static_cast<int32_t>(token),
            std::min(logits[token] * inv - lse, 0.0f)};
  };
  if (params.temperature == 0)
    return result(std::max_element(logits, logits + vocab_size) - logits);

  probabilities_.assign(logits, logits + vocab_size);
  float* const p = probabilities_.data();
  ScaledProbabilities(vocab_size, inv, lse, 1.0f, p);
  const bool top_k = params.top_k > 0 && params.top_k < vocab_size;
  if (top_k || params.top_p < 1) {
    order_.resize(vocab_size);
    std::iota(order_.begin(), order_.end(), 0);
    std::sort(order_.begin(), order_.end(), [p](int32_t a, int32_t b) {
      return p[a] != p[b] ? p[a] > p[b] : a < b;
    });
    size_t kept = top_k ? params.top_k : vocab_size;
    if (params.top_p < 1) {
      double total = 0, sum = 0;
      for (size_t i = 0; i < kept; ++i) total += p[order_[i]];
      size_t nucleus = 0;
      while (nucleus < kept && sum < params.top_p * total)
        sum += p[order_[nucleus++]];
      kept = std::max<size_t>(nucleus, 1);
    }
    for (size_t i = kept; i < order_.size(); ++i) p[order_[i]] = 0;
  }
  double total = 0;
  for (int64_t i = 0; i < vocab_size; ++i) total += p[i];
  const double target = params.noise * total;
  double sum = 0;
  int64_t last = 0;  // for a sum that rounds below the target
  for (int64_t i = 0; i < vocab_size; ++i) {
    if (p[i] == 0) continue;
    sum += p[i];
    last = i;
    if (sum > target) break;
  }
  return result(last);
}

}  // namespace atod::model
