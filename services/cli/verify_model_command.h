#pragma once

#include "CLI/CLI.hpp"

namespace atod::cli {

void AddVerifyModelCommand(CLI::App& app);

}  // namespace atod::cli
