#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// `atod advantages`: the learner's schedules, turn weights, group statistics
// and per-token advantages on recorded log-probs, without a model.
void AddAdvantagesCommand(Command app);

}  // namespace atod::cli
