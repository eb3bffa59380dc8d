#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/problem.h"

namespace atod {

// Nothing that we read needs more. Copying and printing a value recurse, so a
// deeper one could exhaust the stack.
inline constexpr int kMaxJsonDepth = 200;

// INVALID_ARGUMENT for more brackets inside one another than kMaxJsonDepth.
absl::Status CheckJsonDepth(std::string_view text, const std::string& file);

// JSON as its standard has it: no NaN, no number beyond a double, and no key
// twice in one object, of which a reader would see the last only. The error
// names the file, the line and the column.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text,
                                         const std::string& file);

// Refuses a key of `object` that is none of `known`, with the nearest of them.
// `field` is the path of the object in its file ("turns[3]"), or empty.
absl::Status CheckKeys(const nlohmann::json& object,
                       std::initializer_list<std::string_view> known,
                       const std::string& file, const std::string& field = "");

// `value` on one line, at most `limit` bytes, for error messages.
std::string JsonPreview(const nlohmann::json& value, size_t limit = 60);

}  // namespace atod
