#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// `score` and `train` of atod bench.
void AddBenchModelCommands(Command bench);

}  // namespace atod::cli
