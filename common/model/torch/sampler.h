#pragma once

#include <vector>

#include "common/model/language_model.h"
#include "torch/types.h"

namespace atod::model {

// One token a row of float32 logits [rows, vocab_size], as Sampling says; only
// ids and log-probs come to the host. The same ids as the cpu-exact sampler's
// for the same logits and noise.
std::vector<SampledToken> SampleRows(const torch::Tensor& logits,
                                     const std::vector<Sampling>& samplings);

// The part of it that runs on any device: on the CPU, SampleRows takes the
// loops of cpu-exact where the machine can.
std::vector<SampledToken> SampleRowsOnDevice(
    const torch::Tensor& logits, const std::vector<Sampling>& samplings);

}  // namespace atod::model
