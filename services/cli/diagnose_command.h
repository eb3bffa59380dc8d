#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// `atod diagnose`.
void AddDiagnoseCommand(Command app);

}  // namespace atod::cli
