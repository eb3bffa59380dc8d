#pragma once

#include "CLI/CLI.hpp"

namespace atod::cli {

// replay-env, project.
void AddEnvCommands(CLI::App& app);

}  // namespace atod::cli
