#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// score, generate, export, init-model, sft.
void AddModelCommands(Command app);

}  // namespace atod::cli
