#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace atod::learner {

// Section `algorithm` of the configuration as plain values; the names are the
// same and config.proto says what each means. Unset: the value of the profile
// or recipe, see recipe.h.
struct AlgorithmOptions {
  std::string recipe = "atod";
  std::string profile = "default";

  // Schedules.
  double kl_coef_init = 1.0;
  double kl_coef_min = 0.1;
  double rl_coef_init = 1.0;
  double rl_coef_max = 2.0;
  std::optional<int> coef_anneal_steps;
  std::optional<double> kl_coef_constant;
  std::optional<double> rl_coef_constant;
  int first_step = 1;

  // Rewards and group statistics.
  double invalid_action_penalty = 0.1;
  std::optional<std::string> penalty_place;
  std::optional<std::string> penalty_order;
  std::optional<std::string> statistics_over;
  std::optional<std::string> singleton_group;
  std::string group_std = "bessel";
  int duplicate_rows_to = 0;
  double kl_reward_coef = 0;

  // Weights of the distillation term.
  std::optional<std::string> weights;
  double weight_parameter = 1;
  std::optional<int> tdur_min_turns;
  std::optional<double> tdur_min_divergence;
  std::string tdur_score = "soft_or";
  bool weight_mean_preserving = false;
  double weight_kept_fraction = 1;
  double weight_floor = 0;
  int soft_curriculum_steps = 0;
  std::optional<double> soft_curriculum_softness;
  double sod_delta = 0.2;
  std::string sod_mode = "stepwise";
  std::optional<double> sod_gate_min;
  std::optional<double> sod_gate_max;
  std::optional<double> sod_gate_slope;

  // The distillation signal.
  std::string delta_student = "old";
  double delta_scale = 1;
  double delta_clamp = 0;
  double return_to_go = 0;

  // Surrogate and the losses beside it.
  double clip_low = 0.2;
  double clip_high = 0.2;
  std::optional<double> dual_clip;
  std::string ratio_level = "token";
  double importance_cap = 0;
  std::optional<std::string> aggregation;
  int aggregation_rows = 32;
  std::optional<double> entropy_coef;
  double kl_loss_coef = 0;
  std::string kl_estimator = "k3";
  double sdar_lambda = 0.01;
  double sdar_beta = 5;

  // Rollouts.
  std::string tcod_mode = "f2b";
  int tcod_steps = 6;
};

}  // namespace atod::learner
