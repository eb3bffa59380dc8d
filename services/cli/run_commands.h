#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// status, trajectories list, trajectories show, check-ledger.
void AddRunCommands(Command app);

}  // namespace atod::cli
