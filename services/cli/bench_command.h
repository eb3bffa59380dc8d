#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// bench decode
void AddBenchCommands(Command app);

}  // namespace atod::cli
