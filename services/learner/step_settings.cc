#include "services/learner/step_settings.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "atod/v1/config.pb.h"
#include "common/base/status_macros.h"
#include "common/config/values.h"
#include "services/learner/lr_schedule.h"
#include "services/learner/recipe_of.h"

namespace atod::learner {

StepSettings SettingsAt(const v1::RunConfig& config, const Recipe& recipe,
                        uint32_t step) {
  const v1::SamplingConfig& train = config.sampling().train();
  return {
      .step = step,
      .lr = LearningRate(config.optimizer(), config.steps(), step),
      .coefficients = recipe.At(static_cast<int>(step) - 1 + recipe.first_step),
      .temperature = train.temperature(),
      .eval_temperature = config.sampling().eval_temperature(),
      .top_p = train.top_p(),
      .top_k = train.top_k(),
      .max_tokens = train.max_tokens(),
      .max_turns = recipe.rollout.TurnLimit(step, config.env().max_turns()),
      .eval_max_turns = config.env().max_turns()};
}

absl::StatusOr<std::vector<std::string>> DescribeChanges(
    const v1::RunConfig& before, const v1::RunConfig& after, uint32_t done) {
  std::vector<std::string> out;
  for (const config::Difference& d : config::Differences(before, after)) {
    if (d.key == "name") continue;
    out.push_back("the configuration is not the checkpoint's: " + d.ToString());
  }
  if (done >= after.steps()) return out;  // nothing is trained any more
  ATOD_ASSIGN_OR_RETURN(const Recipe old_recipe, RecipeOf(before.algorithm()));
  ATOD_ASSIGN_OR_RETURN(const Recipe recipe, RecipeOf(after.algorithm()));
  const StepSettings was = SettingsAt(before, old_recipe, done + 1);
  const StepSettings is = SettingsAt(after, recipe, done + 1);
  const auto jump = [&](const char* what, double old, double now) {
    if (old == now) return;
    out.push_back(absl::StrFormat(
        "the schedule of the %s jumps: %g at step %d, %g as the run began",
        what, now, done + 1, old));
  };
  jump("learning rate", was.lr, is.lr);
  jump("kl coefficient", was.coefficients.kl, is.coefficients.kl);
  jump("rl coefficient", was.coefficients.rl, is.coefficients.rl);
  return out;
}

}  // namespace atod::learner
