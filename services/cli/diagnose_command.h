#pragma once

#include "CLI/CLI.hpp"

namespace atod::cli {

// `atod diagnose`.
void AddDiagnoseCommand(CLI::App& app);

}  // namespace atod::cli
