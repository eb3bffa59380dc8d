#pragma once

#include "atod/v1/config.pb.h"
#include "services/learner/algorithm/options.h"

namespace atod::learner {

// Section `algorithm` of a loaded configuration as the pieces take it. Keys
// that are not set keep the defaults of AlgorithmOptions. Values are checked by
// the loader and by MakeRecipe.
AlgorithmOptions AlgorithmOptionsOf(const v1::AlgorithmConfig& config);

}  // namespace atod::learner
