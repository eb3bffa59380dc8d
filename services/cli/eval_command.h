#pragma once

#include "CLI/CLI.hpp"

namespace atod::cli {

// `atod eval`: plays a fixed list of tasks with a model or a scripted policy.
void AddEvalCommand(CLI::App& app);

}  // namespace atod::cli
