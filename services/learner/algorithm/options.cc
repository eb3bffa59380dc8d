#include "services/learner/algorithm/options.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::learner {
namespace {

absl::Status Wrong(const std::string& key, const std::string& found,
                   const std::string& expected) {
  return BadInput({.file = "",
                   .field = absl::StrCat("algorithm.", key),
                   .line = 0,
                   .found = found,
                   .expected = expected});
}

// NaN fails too.
absl::Status AtLeast(const std::string& key, double value, double least,
                     const std::string& name) {
  if (value >= least && value < 1e300) return absl::OkStatus();
  return Wrong(key, absl::StrCat(value), absl::StrCat("at least ", name));
}

absl::Status CheckRanges(const AlgorithmOptions& o) {
  ATOD_RETURN_IF_ERROR(AtLeast("kl_coef_min", o.kl_coef_min, 0, "0"));
  ATOD_RETURN_IF_ERROR(AtLeast("kl_coef_init", o.kl_coef_init, o.kl_coef_min,
                               absl::StrCat("kl_coef_min ", o.kl_coef_min)));
  ATOD_RETURN_IF_ERROR(AtLeast("rl_coef_init", o.rl_coef_init, 0, "0"));
  ATOD_RETURN_IF_ERROR(AtLeast("rl_coef_max", o.rl_coef_max, o.rl_coef_init,
                               absl::StrCat("rl_coef_init ", o.rl_coef_init)));
  ATOD_RETURN_IF_ERROR(
      AtLeast("coef_anneal_steps", o.coef_anneal_steps, 1, "1"));
  ATOD_RETURN_IF_ERROR(
      AtLeast("invalid_action_penalty", o.invalid_action_penalty, 0, "0"));
  ATOD_RETURN_IF_ERROR(
      AtLeast("tdur_min_turns", o.tdur_min_turns.value_or(0), 0, "0"));
  ATOD_RETURN_IF_ERROR(AtLeast("tdur_min_divergence",
                               o.tdur_min_divergence.value_or(0), 0, "0"));
  ATOD_RETURN_IF_ERROR(AtLeast("clip_low", o.clip_low, 0, "0"));
  if (o.clip_low > 1)
    return Wrong("clip_low", absl::StrCat(o.clip_low), "at most 1");
  return AtLeast("clip_high", o.clip_high, 0, "0");
}

}  // namespace

double Schedule::At(int step) const {
  const double progress = std::min(
      static_cast<double>(step) / static_cast<double>(anneal_steps), 1.0);
  if (progress >= 1.0) return end;
  return init + (end - init) * progress;
}

absl::StatusOr<Recipe> MakeRecipe(const AlgorithmOptions& options) {
  ATOD_RETURN_IF_ERROR(CheckRanges(options));
  Recipe recipe;
  if (options.profile == "paper") {
    recipe.tdur.min_turns = 0;
    recipe.tdur.min_divergence = 0;
    recipe.penalty_scope = PenaltyScope::kEveryGroup;
  } else if (options.profile == "default") {
    recipe.tdur.min_turns = 3;
    recipe.tdur.min_divergence = 0.01;
    recipe.penalty_scope = PenaltyScope::kWhereRewardVaries;
  } else {
    return Wrong("profile", absl::StrCat("\"", options.profile, "\""),
                 "paper or default");
  }
  recipe.tdur.min_turns =
      options.tdur_min_turns.value_or(recipe.tdur.min_turns);
  recipe.tdur.min_divergence =
      options.tdur_min_divergence.value_or(recipe.tdur.min_divergence);

  const auto constant = [](double value) {
    return Schedule{.init = value, .end = value, .anneal_steps = 1};
  };
  if (options.recipe == "atod") {
    recipe.needs_teacher = true;
    recipe.kl = {options.kl_coef_init, options.kl_coef_min,
                 options.coef_anneal_steps};
    recipe.rl = {options.rl_coef_init, options.rl_coef_max,
                 options.coef_anneal_steps};
    recipe.tdur.enabled = options.tdur_weights;
  } else if (options.recipe == "opd") {
    recipe.needs_teacher = true;
    recipe.kl = constant(options.kl_coef_init);
    recipe.rl = constant(0);
    recipe.tdur.enabled = false;
  } else if (options.recipe == "grpo") {
    recipe.kl = constant(0);
    recipe.rl = constant(options.rl_coef_init);
    recipe.tdur.enabled = false;
  } else {
    return Wrong("recipe", absl::StrCat("\"", options.recipe, "\""),
                 "atod, opd or grpo");
  }
  return recipe;
}

}  // namespace atod::learner
