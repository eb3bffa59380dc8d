#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"

namespace atod::learner {

// The learning rate of all updates of `step` (from 1) in a run of `steps`:
// lr * step / warmup while step < warmup, which is the longer of warmup_steps
// and ceil(warmup_ratio * steps), then
//   constant  lr
//   linear    from lr, at the end of the warm-up, to lr_end at the last step
//   cosine    the same along half a cosine
//   step      lr up to and including decay_step, lr_end after it
double LearningRate(const v1::OptimizerConfig& config, uint32_t steps,
                    uint32_t step);

}  // namespace atod::learner
