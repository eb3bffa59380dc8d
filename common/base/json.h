#pragma once

#include <algorithm>
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
inline absl::Status CheckJsonDepth(std::string_view text,
                                   const std::string& file) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth <= kMaxJsonDepth) continue;
      const std::string_view before = text.substr(0, i);
      return BadInput(
          {.file = file,
           .line = 1 + std::count(before.begin(), before.end(), '\n'),
           .found = "values nested too deeply",
           .expected = "at most " + std::to_string(kMaxJsonDepth) + " levels"});
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return absl::OkStatus();
}

// nlohmann's parser without exceptions: INVALID_ARGUMENT names the file and
// the line of the first error.
inline absl::StatusOr<nlohmann::json> ParseJson(std::string_view text,
                                                const std::string& file) {
  const absl::Status shallow = CheckJsonDepth(text, file);
  if (!shallow.ok()) return shallow;
  try {
    return nlohmann::json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::parse_error& e) {
    const size_t at = std::min<size_t>(e.byte, text.size());
    const std::string_view before = text.substr(0, at);
    return BadInput({.file = file,
                     .line = 1 + std::count(before.begin(), before.end(), '\n'),
                     .found = e.byte >= text.size() ? "an early end" : e.what(),
                     .expected = "JSON"});
  } catch (const nlohmann::json::exception& e) {  // number out of range
    return BadInput({.file = file, .found = e.what(), .expected = "JSON"});
  }
}

// `value` on one line, at most `limit` bytes, for error messages.
inline std::string JsonPreview(const nlohmann::json& value, size_t limit = 60) {
  std::string text =
      value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > limit) text = text.substr(0, limit) + "...";
  return text;
}

}  // namespace atod
