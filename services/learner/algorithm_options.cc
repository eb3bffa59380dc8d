#include "services/learner/algorithm_options.h"

namespace atod::learner {

AlgorithmOptions AlgorithmOptionsOf(const v1::AlgorithmConfig& config) {
  AlgorithmOptions o;
#define ATOD_COPY(key) \
  if (config.has_##key()) o.key = config.key();
#define ATOD_COPY_INT(key) \
  if (config.has_##key()) o.key = static_cast<int>(config.key());
  ATOD_COPY(recipe)
  ATOD_COPY(profile)
  ATOD_COPY(kl_coef_init)
  ATOD_COPY(kl_coef_min)
  ATOD_COPY(rl_coef_init)
  ATOD_COPY(rl_coef_max)
  ATOD_COPY_INT(coef_anneal_steps)
  ATOD_COPY(kl_coef_constant)
  ATOD_COPY(rl_coef_constant)
  ATOD_COPY_INT(first_step)
  ATOD_COPY(invalid_action_penalty)
  ATOD_COPY(penalty_place)
  ATOD_COPY(penalty_order)
  ATOD_COPY(statistics_over)
  ATOD_COPY(singleton_group)
  ATOD_COPY(group_std)
  ATOD_COPY_INT(duplicate_rows_to)
  ATOD_COPY(kl_reward_coef)
  if (!config.weights().empty()) o.weights = config.weights();
  ATOD_COPY(weight_parameter)
  ATOD_COPY_INT(tdur_min_turns)
  ATOD_COPY(tdur_min_divergence)
  ATOD_COPY(tdur_score)
  ATOD_COPY(weight_mean_preserving)
  ATOD_COPY(weight_kept_fraction)
  ATOD_COPY(weight_floor)
  ATOD_COPY_INT(soft_curriculum_steps)
  ATOD_COPY(soft_curriculum_softness)
  ATOD_COPY(sod_delta)
  ATOD_COPY(sod_mode)
  ATOD_COPY(sod_gate_min)
  ATOD_COPY(sod_gate_max)
  ATOD_COPY(sod_gate_slope)
  ATOD_COPY(delta_student)
  ATOD_COPY(delta_scale)
  ATOD_COPY(delta_clamp)
  ATOD_COPY(return_to_go)
  ATOD_COPY(clip_low)
  ATOD_COPY(clip_high)
  ATOD_COPY(dual_clip)
  ATOD_COPY(ratio_level)
  ATOD_COPY(importance_cap)
  ATOD_COPY(aggregation)
  ATOD_COPY_INT(aggregation_rows)
  ATOD_COPY(entropy_coef)
  ATOD_COPY(kl_loss_coef)
  ATOD_COPY(kl_estimator)
  ATOD_COPY(sdar_lambda)
  ATOD_COPY(sdar_beta)
  ATOD_COPY(tcod_mode)
  ATOD_COPY_INT(tcod_steps)
#undef ATOD_COPY
#undef ATOD_COPY_INT
  return o;
}

}  // namespace atod::learner
