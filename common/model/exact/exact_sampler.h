#pragma once

#include <cstdint>
#include <vector>

#include "common/model/language_model.h"

namespace atod::model {

// Draws tokens from logits as Sampling says, a pure function of its arguments.
// Keeps scratch memory; not thread-safe.
class ExactSampler {
 public:
  SampledToken Sample(const float* logits, int64_t vocab_size,
                      const Sampling& sampling);

 private:
  std::vector<float> probabilities_;
  std::vector<int32_t> order_;
};

}  // namespace atod::model
