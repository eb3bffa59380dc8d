#pragma once

#include "services/cli/command.h"

namespace atod::cli {

// tokenize, chat-template, prompt, train-tokenizer.
void AddTextCommands(Command app);

}  // namespace atod::cli
