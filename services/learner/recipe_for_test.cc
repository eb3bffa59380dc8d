#include "services/learner/recipe_for_test.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "services/learner/recipe_of.h"

namespace atod::learner {

Setting::Setting(double value) : text(absl::StrFormat("%.17g", value)) {}

absl::StatusOr<Recipe> TryRecipe(const Settings& settings) {
  std::vector<std::string> sets;
  for (const auto& [key, value] : settings)
    sets.push_back(absl::StrCat("algorithm.", key, "=", value.text));
  ATOD_ASSIGN_OR_RETURN(const config::LoadedConfig loaded,
                        config::LoadRunConfig({}, sets));
  return RecipeOf(loaded.config.algorithm());
}

Recipe RecipeFor(const Settings& settings) {
  return TryRecipe(settings).value();
}

}  // namespace atod::learner
