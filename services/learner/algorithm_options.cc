#include "services/learner/algorithm_options.h"

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "services/learner/algorithm/recipe.h"

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

absl::Status CheckRecipeInputs(const v1::RunConfig& config) {
  const v1::AlgorithmConfig& a = config.algorithm();
  ATOD_ASSIGN_OR_RETURN(const Recipe recipe, MakeRecipe(AlgorithmOptionsOf(a)));
  const auto wrong = [](const char* field, const std::string& found,
                        const std::string& expected) {
    return BadInput({.file = "configuration",
                     .field = field,
                     .found = found,
                     .expected = expected});
  };
  const auto file = [&](const char* field, const std::string& path,
                        const char* what) -> absl::Status {
    if (path.empty()) return wrong(field, "nothing", what);
    if (std::filesystem::is_regular_file(path)) return absl::OkStatus();
    return wrong(field, absl::StrCat("no file ", path), what);
  };
  if (recipe.needs_teacher && config.teachers().empty()) {
    return wrong("teachers", "none",
                 absl::StrCat("a teacher for recipe ", a.recipe()));
  }
  if (recipe.rollout.mode == RolloutPolicy::Mode::kBackToFront) {
    ATOD_RETURN_IF_ERROR(file("env.episodes", config.env().episodes(),
                              "a file of `atod collect` for tcod_mode b2f"));
  }
  if (recipe.needs_context) {
    ATOD_RETURN_IF_ERROR(file("env.skills", config.env().skills(),
                              "a file of skill texts for recipe sdar"));
  }
  const uint64_t episodes = uint64_t{a.tasks_per_step()} * a.group_size();
  if (config.optimizer().updates_per_step() > episodes) {
    return wrong(
        "optimizer.updates_per_step",
        absl::StrCat(config.optimizer().updates_per_step()),
        absl::StrCat("at most ", episodes, ", the episodes of a step"));
  }
  return absl::OkStatus();
}

}  // namespace atod::learner
