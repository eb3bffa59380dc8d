#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "services/learner/algorithm/recipe.h"

namespace atod::learner {

// A value of section `algorithm` as a configuration has it.
struct Setting {
  std::string text;
  Setting() = default;
  Setting(const char* value) : text(value) {}
  Setting(std::string value) : text(std::move(value)) {}
  Setting(bool value) : text(value ? "true" : "false") {}
  Setting(int value) : text(std::to_string(value)) {}
  Setting(double value);
};

// Keys of section `algorithm`; the others keep the configuration's defaults.
using Settings = std::map<std::string, Setting>;

// What the loader and RecipeOf make of `settings`.
absl::StatusOr<Recipe> TryRecipe(const Settings& settings);
// The same for settings that are right.
Recipe RecipeFor(const Settings& settings);

}  // namespace atod::learner
