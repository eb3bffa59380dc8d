#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/model/model.h"

namespace atod::model {

class CpuDecoder;

// Whether this model is scored by the float32 CPU kernels: they are wanted and
// fit it, its device and its dtype (and its size, where gradients are on).
bool CanScoreOnCpu(Qwen3& model);
// What hinders it; empty when nothing does.
std::string KernelObstacle(Qwen3& model);

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
