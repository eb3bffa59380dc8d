#pragma once

#include <string>

#include "spdlog/spdlog.h"

namespace atod {

// Sets the process-wide logger: one line an event on stderr,
// "TIME LEVEL role: text". `level` is spdlog's name (trace … off).
void InitLogging(const std::string& role, const std::string& level = "info");

}  // namespace atod
