#pragma once

#include <cstdint>
#include <vector>

#include "common/base/rng.h"
#include "services/rollout/engine.h"

namespace atod::rollout {

struct SampledToken {
  int32_t token = 0;
  float logprob = 0;  // as in EngineResult
};

// Draws tokens from logits. Keeps scratch memory; not thread-safe.
class Sampler {
 public:
  // temperature 0 takes the largest logit (the lowest id of equal ones). Else
  // the inverse of the cumulative distribution, in order of ids, at the noise
  // of `key`: after top-k, then after top-p of what top-k left. A pure
  // function of its arguments.
  SampledToken Sample(const float* logits, int64_t vocab_size,
                      const SamplingParams& params, const NoiseKey& key);

 private:
  std::vector<float> probabilities_;
  std::vector<int32_t> order_;
};

}  // namespace atod::rollout
