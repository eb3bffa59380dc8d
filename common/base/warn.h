#pragma once

#include <string>

namespace atod {

// A warning in the log, for files that cannot include spdlog beside torch
// (each brings its own fmt).
void LogWarning(const std::string& text);

}  // namespace atod
