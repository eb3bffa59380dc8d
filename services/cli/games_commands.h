#pragma once

#include "CLI/CLI.hpp"

namespace atod::cli {

// atod games: household games in ALFWorld's file format; games stats.
void AddGamesCommands(CLI::App& app);

}  // namespace atod::cli
