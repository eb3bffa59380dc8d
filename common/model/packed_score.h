#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/model/model.h"

namespace atod::model {

class CpuDecoder;

// Whether the float32 CPU kernels can score with this model.
bool CanScoreOnCpu(Qwen3& model);

// ScoreSpans by the CPU kernels; CanScoreOnCpu must hold. `frozen` (null or
// made from the same weights, not owned) saves laying out the weights and is
// used without gradients only.
SpanLogProbs CpuScoreSpans(Qwen3& model,
                           const std::vector<ScoredSequence>& batch,
                           float temperature, bool want_entropy,
                           const CpuDecoder* frozen = nullptr);

// The weights of `model` laid out for the CPU kernels.
std::shared_ptr<const CpuDecoder> MakeCpuDecoder(Qwen3& model,
                                                 int64_t max_positions,
                                                 bool backward);

}  // namespace atod::model
