#pragma once

#include "CLI/CLI.hpp"

namespace atod::cli {

// status, trajectories list, trajectories show, check-ledger.
void AddRunCommands(CLI::App& app);

}  // namespace atod::cli
