#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// atod games: household games in ALFWorld's file format; games stats.
void AddGamesCommands(Command app);

}  // namespace atod::cli
