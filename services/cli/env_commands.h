#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// replay-env, project.
void AddEnvCommands(Command app);

}  // namespace atod::cli
