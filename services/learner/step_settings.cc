#include "services/learner/step_settings.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/config/values.h"
#include "services/learner/algorithm/recipe.h"
#include "services/learner/lr_schedule.h"
#include "services/learner/recipe_of.h"

namespace atod::learner {

absl::StatusOr<StepSettings> SettingsAt(const v1::RunConfig& config,
                                        uint32_t step) {
  ATOD_ASSIGN_OR_RETURN(const Recipe recipe, RecipeOf(config.algorithm()));
  const int s = static_cast<int>(step + config.algorithm().first_step()) - 1;
  return StepSettings{
      .lr = LearningRate(config.optimizer(), config.steps(), step),
      .kl_coef = recipe.kl.At(s),
      .rl_coef = recipe.rl.At(s)};
}

absl::StatusOr<std::vector<std::string>> DescribeChanges(
    const v1::RunConfig& before, const v1::RunConfig& after, uint32_t done) {
  std::vector<std::string> out;
  for (const config::Difference& d : config::Differences(before, after)) {
    if (d.key == "name") continue;
    out.push_back("the configuration is not the checkpoint's: " + d.ToString());
  }
  if (done >= after.steps()) return out;  // nothing is trained any more
  ATOD_ASSIGN_OR_RETURN(const StepSettings was, SettingsAt(before, done + 1));
  ATOD_ASSIGN_OR_RETURN(const StepSettings is, SettingsAt(after, done + 1));
  const auto jump = [&](const char* what, double old, double now) {
    if (old == now) return;
    out.push_back(absl::StrFormat(
        "the schedule of the %s jumps: %g at step %d, %g as the run began",
        what, now, done + 1, old));
  };
  jump("learning rate", was.lr, is.lr);
  jump("kl coefficient", was.kl_coef, is.kl_coef);
  jump("rl coefficient", was.rl_coef, is.rl_coef);
  return out;
}

}  // namespace atod::learner
