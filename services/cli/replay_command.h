#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// replay, compare.
void AddReplayCommand(Command app);

}  // namespace atod::cli
