#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"
#include "services/learner/algorithm/recipe.h"

namespace atod::learner {

// The pieces that section `algorithm` of a loaded configuration names: the one
// place that reads its keys. INVALID_ARGUMENT with the field for values that do
// not go together and for one that is missing.
//
// docs/recipes has every recipe and docs/decisions/0003 every difference
// between the profiles. `paper` is the printed equations. `default` is the same
// with T-DUR's guards (3 turns, divergence 0.01), which only remove degenerate
// cases, and without the penalty in groups whose rewards are all equal, where
// Eq. 2 would blow the penalty alone up to an advantage of full scale.
// `released` is what the authors' code does.
absl::StatusOr<Recipe> RecipeOf(const v1::AlgorithmConfig& config);

// INVALID_ARGUMENT for what makes a run impossible before it starts: an unknown
// recipe or value, a teacher, stored episodes or skills that the recipe needs
// and nobody names or that are not there, more updates than a step has
// episodes.
absl::Status CheckRecipeInputs(const v1::RunConfig& config);

}  // namespace atod::learner
