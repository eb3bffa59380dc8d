#include "services/learner/lr_schedule.h"

#include <algorithm>

namespace atod::learner {

double LearningRate(const v1::OptimizerConfig& config, uint32_t steps,
                    uint32_t step) {
  const uint32_t warmup = config.warmup_steps();
  if (step < warmup) return config.lr() * step / warmup;
  if (config.schedule() == "linear") {
    const double span = steps > warmup ? steps - warmup : 1;
    const double done = std::min(1.0, (step - warmup) / span);
    return config.lr() + (config.lr_end() - config.lr()) * done;
  }
  if (config.schedule() == "step" && step > config.decay_step())
    return config.lr_end();
  return config.lr();
}

}  // namespace atod::learner
