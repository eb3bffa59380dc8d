#pragma once

#include "CLI/CLI.hpp"

namespace atod::cli {

// `atod report`.
void AddReportCommand(CLI::App& app);

}  // namespace atod::cli
