#pragma once

#include "absl/status/status.h"
#include "atod/v1/config.pb.h"
#include "services/learner/algorithm/options.h"

namespace atod::learner {

// Section `algorithm` of a loaded configuration as the pieces take it. Keys
// that are not set keep the defaults of AlgorithmOptions. Values are checked by
// the loader and by MakeRecipe.
AlgorithmOptions AlgorithmOptionsOf(const v1::AlgorithmConfig& config);

// INVALID_ARGUMENT for what makes a run impossible before it starts: an unknown
// recipe or value, a teacher, stored episodes or skills that the recipe needs
// and nobody names or that are not there, more updates than a step has
// episodes.
absl::Status CheckRecipeInputs(const v1::RunConfig& config);

}  // namespace atod::learner
