#pragma once

#include "CLI/CLI.hpp"

namespace atod::cli {

// `atod collect`: a model plays a split, its successes are kept as actions.
void AddCollectCommand(CLI::App& app);

}  // namespace atod::cli
