#pragma once

#include "CLI/CLI.hpp"

namespace atod::cli {

// `atod advantages`: the learner's schedules, turn weights, group statistics
// and per-token advantages on recorded log-probs, without a model.
void AddAdvantagesCommand(CLI::App& app);

}  // namespace atod::cli
