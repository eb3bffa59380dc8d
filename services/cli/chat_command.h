#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// chat
void AddChatCommand(Command app);

}  // namespace atod::cli
