#include "services/cli/json_lines.h"

#include <cstdio>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::cli {

using nlohmann::json;

namespace {

void NoNegativeZero(json& value) {
  if (value.is_structured()) {
    for (json& element : value) NoNegativeZero(element);
  } else if (value.is_number_float() && value == 0) {
    value = 0.0;
  }
}

}  // namespace

absl::Status ForEachLine(
    std::istream& in, const std::string& file,
    const std::function<absl::Status(const json& value)>& use) {
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    const absl::StatusOr<json> value = ParseJson(line, file);
    const absl::Status status = value.ok() ? use(*value) : value.status();
    if (absl::IsInvalidArgument(status)) {
      Problem problem = ProblemOf(status);
      if (problem.expected.empty()) {  // a plain message
        return absl::InvalidArgumentError(
            absl::StrCat(file, ":", number, ": ", status.message()));
      }
      problem.file = file;
      problem.line = number;
      return BadInput(problem);
    }
    ATOD_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

absl::Status ForEachLineOf(
    const std::string& path,
    const std::function<absl::Status(const json& value)>& use) {
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  if (text.find_first_not_of(" \t\r\n") == text.npos)
    return BadInput({path, "", 0, "no rows", "JSON lines"});
  std::istringstream lines(text);
  return ForEachLine(lines, path, use);
}

void PrintLine(json value) {
  NoNegativeZero(value);
  std::puts(value.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
}

}  // namespace atod::cli
