#pragma once

#include "services/cli/command.h"

namespace atod::cli {

void AddVerifyModelCommand(Command app);

}  // namespace atod::cli
