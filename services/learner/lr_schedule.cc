#include "services/learner/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace atod::learner {

double LearningRate(const v1::OptimizerConfig& config, uint32_t steps,
                    uint32_t step) {
  const uint32_t warmup =
      std::max(config.warmup_steps(),
               static_cast<uint32_t>(std::ceil(config.warmup_ratio() * steps)));
  if (step < warmup) return config.lr() * step / warmup;
  const double span = steps > warmup ? steps - warmup : 1;
  const double done = std::min(1.0, (step - warmup) / span);
  if (config.schedule() == "linear")
    return config.lr() + (config.lr_end() - config.lr()) * done;
  if (config.schedule() == "cosine") {
    return config.lr_end() + (config.lr() - config.lr_end()) *
                                 (1 + std::cos(std::numbers::pi * done)) / 2;
  }
  if (config.schedule() == "step" && step > config.decay_step())
    return config.lr_end();
  return config.lr();
}

}  // namespace atod::learner
