#include "services/learner/algorithm_options.h"

namespace atod::learner {

AlgorithmOptions AlgorithmOptionsOf(const v1::AlgorithmConfig& config) {
  AlgorithmOptions o;
  if (config.has_recipe()) o.recipe = config.recipe();
  if (config.has_profile()) o.profile = config.profile();
  if (config.has_kl_coef_init()) o.kl_coef_init = config.kl_coef_init();
  if (config.has_kl_coef_min()) o.kl_coef_min = config.kl_coef_min();
  if (config.has_rl_coef_init()) o.rl_coef_init = config.rl_coef_init();
  if (config.has_rl_coef_max()) o.rl_coef_max = config.rl_coef_max();
  if (config.has_coef_anneal_steps())
    o.coef_anneal_steps = static_cast<int>(config.coef_anneal_steps());
  if (config.has_invalid_action_penalty())
    o.invalid_action_penalty = config.invalid_action_penalty();
  if (config.has_tdur_min_turns())
    o.tdur_min_turns = static_cast<int>(config.tdur_min_turns());
  if (config.has_tdur_min_divergence())
    o.tdur_min_divergence = config.tdur_min_divergence();
  if (config.has_tdur_weights())
    o.tdur_weights = config.tdur_weights() != "one";
  if (config.has_clip_low()) o.clip_low = config.clip_low();
  if (config.has_clip_high()) o.clip_high = config.clip_high();
  if (config.has_aggregation()) {
    o.aggregation = config.aggregation() == "token" ? Aggregation::kToken
                                                    : Aggregation::kTrajectory;
  }
  return o;
}

}  // namespace atod::learner
