#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// `atod up` (all services of a run on this machine) and `atod train` (only the
// learner; the services are elsewhere).
void AddUpCommands(Command app);

}  // namespace atod::cli
