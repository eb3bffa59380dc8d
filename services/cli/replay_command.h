#pragma once

#include "CLI/CLI.hpp"

namespace atod::cli {

// replay, compare.
void AddReplayCommand(CLI::App& app);

}  // namespace atod::cli
