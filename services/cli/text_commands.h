#pragma once

#include "CLI/CLI.hpp"

namespace atod::cli {

// tokenize, chat-template, prompt, train-tokenizer.
void AddTextCommands(CLI::App& app);

}  // namespace atod::cli
