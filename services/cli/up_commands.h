#pragma once

#include "CLI/CLI.hpp"

namespace atod::cli {

// `atod up` (all services of a run on this machine) and `atod train` (only the
// learner; the services are elsewhere).
void AddUpCommands(CLI::App& app);

}  // namespace atod::cli
