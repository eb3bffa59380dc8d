#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// `atod report`.
void AddReportCommand(Command app);

}  // namespace atod::cli
