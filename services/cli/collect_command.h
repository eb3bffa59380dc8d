#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// `atod collect`: a model plays a split, its successes are kept as actions.
void AddCollectCommand(Command app);

}  // namespace atod::cli
