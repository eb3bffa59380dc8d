#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/learner/algorithm/recipe.h"

namespace atod::v1 {
class RunConfig;
}

namespace atod::learner {

// What of a run may change from step to step. Everything that trains, gives out
// work or evaluates takes it from here.
struct StepSettings {
  uint32_t step = 1;
  double lr = 0;  // of all updates
  Coefficients coefficients;
  // Of training episodes; the others below are of evaluations, too.
  double temperature = 1;
  double eval_temperature = 1;
  double top_p = 1;
  uint32_t top_k = 0;
  uint32_t max_tokens = 0;
  uint32_t max_turns = 0;
  uint32_t eval_max_turns = 0;
};

// Of training step `step`, from 1, and of the evaluation after it; a pure
// function. `recipe` is RecipeOf the configuration.
StepSettings SettingsAt(const v1::RunConfig& config, const Recipe& recipe,
                        uint32_t step);

// What a person should hear when a run goes on after step `done` with another
// configuration, one line each: every changed key (but the name) with both
// values, and every schedule that jumps. INVALID_ARGUMENT when one of them
// names no recipe.
absl::StatusOr<std::vector<std::string>> DescribeChanges(
    const v1::RunConfig& before, const v1::RunConfig& after, uint32_t done);

}  // namespace atod::learner
