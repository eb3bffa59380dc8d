#include "common/base/json.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/base/edit_distance.h"
#include "common/base/printable.h"
#include "common/base/status_macros.h"

namespace atod {
namespace {

using nlohmann::json;

int64_t LineAt(std::string_view text, size_t at) {
  return 1 + std::count(text.begin(), text.begin() + at, '\n');
}

// The byte behind the text that begins with the quote at `begin`.
size_t EndOfString(std::string_view text, size_t begin) {
  size_t i = begin + 1;
  while (i < text.size() && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
  return std::min(i + 1, text.size());
}

// The first key that its object has already. `text` is valid JSON.
absl::Status CheckKeysOnce(std::string_view text, const std::string& file) {
  // Of each open bracket: its keys so far and where they stand.
  std::vector<absl::flat_hash_map<std::string, size_t>> open;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '{' || c == '[') open.emplace_back();
    if (c == '}' || c == ']') open.pop_back();
    if (c != '"') continue;
    const size_t begin = i, end = EndOfString(text, begin);
    i = end - 1;
    const size_t next = text.find_first_not_of(" \t\r\n", end);
    if (next == std::string_view::npos || text[next] != ':') continue;
    const std::string_view quoted = text.substr(begin, end - begin);
    std::string key(quoted.substr(1, quoted.size() - 2));
    if (key.find('\\') != std::string::npos)
      key = json::parse(quoted).get<std::string>();
    const auto [it, fresh] = open.back().emplace(std::move(key), begin);
    if (fresh) continue;
    const auto column = [&](size_t at) {
      return at - (text.rfind('\n', at) + 1) + 1;  // npos + 1 is 0
    };
    const int64_t line = LineAt(text, begin), first = LineAt(text, it->second);
    return BadInput(
        {.file = file,
         .field = OneLine(it->first),
         .line = line,
         .found = absl::StrCat(
             "the key again in column ", column(begin), ", first ",
             line == first ? absl::StrCat("in column ", column(it->second))
                           : absl::StrCat("on line ", first)),
         .expected = "each key once"});
  }
  return absl::OkStatus();
}

// What a parser says, without its own names: "[json.exception…] TEXT".
std::string Words(const json::exception& e) {
  const std::string_view what = e.what();
  const size_t end = what.find("] ");
  return OneLine(end == what.npos ? what : what.substr(end + 2));
}

absl::StatusOr<json> Parse(std::string_view text, const std::string& file) {
  try {
    return json::parse(text.begin(), text.end());
  } catch (const json::parse_error& e) {
    const size_t at = std::min<size_t>(e.byte, text.size());
    return BadInput({.file = file,
                     .line = LineAt(text, at),
                     .found = e.byte >= text.size() ? "an early end" : Words(e),
                     .expected = "JSON"});
  } catch (const json::exception& e) {  // number out of range
    return BadInput({.file = file, .found = Words(e), .expected = "JSON"});
  }
}

}  // namespace

absl::Status CheckJsonDepth(std::string_view text, const std::string& file) {
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      i = EndOfString(text, i) - 1;
    } else if (c == ']' || c == '}') {
      --depth;
    } else if ((c == '[' || c == '{') && ++depth > kMaxJsonDepth) {
      return BadInput(
          {.file = file,
           .line = LineAt(text, i),
           .found = "values nested too deeply",
           .expected = absl::StrCat("at most ", kMaxJsonDepth, " levels")});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<json> ParseJson(std::string_view text, const std::string& file) {
  ATOD_RETURN_IF_ERROR(CheckJsonDepth(text, file));
  ATOD_ASSIGN_OR_RETURN(json value, Parse(text, file));
  ATOD_RETURN_IF_ERROR(CheckKeysOnce(text, file));
  return value;
}

absl::Status CheckKeys(const json& object,
                       std::initializer_list<std::string_view> known,
                       const std::string& file, const std::string& field) {
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string_view nearest =
        *std::min_element(known.begin(), known.end(),
                          [&](std::string_view a, std::string_view b) {
                            return EditDistance(a, key) < EditDistance(b, key);
                          });
    return BadInput(
        {.file = file,
         .field = absl::StrCat(field, field.empty() ? "" : ".", OneLine(key)),
         .found = "an unknown key",
         .expected = std::string(nearest)});
  }
  return absl::OkStatus();
}

std::string JsonPreview(const json& value, size_t limit) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > limit) text = text.substr(0, limit) + "...";
  return text;
}

}  // namespace atod
