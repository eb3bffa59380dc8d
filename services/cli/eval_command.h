#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// `atod eval`: plays a fixed list of tasks with a model or a scripted policy.
void AddEvalCommand(Command app);

}  // namespace atod::cli
