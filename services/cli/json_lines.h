#pragma once

#include <functional>
#include <istream>
#include <string>

#include "absl/status/status.h"
#include "common/base/json.h"

namespace atod::cli {

// Calls `use` with the JSON value of every line that is not empty. Bad input,
// of the line or as `use` finds it, is said with `file` and the line.
absl::Status ForEachLine(
    std::istream& in, const std::string& file,
    const std::function<absl::Status(const nlohmann::json& value)>& use);

// The same for the file at `path`, which has a line at least.
absl::Status ForEachLineOf(
    const std::string& path,
    const std::function<absl::Status(const nlohmann::json& value)>& use);

// One line on stdout; -0.0 is 0.0 there.
void PrintLine(nlohmann::json value);

}  // namespace atod::cli
