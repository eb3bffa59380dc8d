#include "common/base/problem.h"

#include <optional>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace atod {
namespace {

constexpr char kPayload[] = "atod.v1.Problem";
// Parts of the payload; cannot occur in text that a parser accepted.
constexpr char kSeparator = '\x1f';

std::string Message(const Problem& p) {
  std::string out = p.file;
  if (p.line > 0) absl::StrAppend(&out, out.empty() ? "line " : ":", p.line);
  if (!out.empty()) absl::StrAppend(&out, ": ");
  if (!p.field.empty()) absl::StrAppend(&out, p.field, ": ");
  absl::StrAppend(&out, "found ", p.found, ", expected ", p.expected);
  return out;
}

std::optional<Problem> Payload(const absl::Status& status) {
  const absl::optional<absl::Cord> cord = status.GetPayload(kPayload);
  if (!cord.has_value()) return std::nullopt;
  const std::string flat(*cord);
  const std::vector<std::string> parts = absl::StrSplit(flat, kSeparator);
  if (parts.size() != 5) return std::nullopt;
  Problem p{parts[0], parts[1], 0, parts[3], parts[4]};
  if (!absl::SimpleAtoi(parts[2], &p.line)) p.line = 0;
  return p;
}

}  // namespace

absl::Status BadInput(const Problem& p) {
  absl::Status status = absl::InvalidArgumentError(Message(p));
  const std::string sep(1, kSeparator);
  status.SetPayload(
      kPayload, absl::Cord(absl::StrCat(p.file, sep, p.field, sep, p.line, sep,
                                        p.found, sep, p.expected)));
  return status;
}

Problem ProblemOf(const absl::Status& status) {
  if (std::optional<Problem> p = Payload(status)) return *p;
  Problem plain;
  plain.found = std::string(status.message());
  return plain;
}

absl::Status WithFile(const absl::Status& status, std::string_view file) {
  if (status.ok()) return status;
  std::optional<Problem> p = Payload(status);
  if (p.has_value()) {
    if (!p->file.empty()) return status;
    p->file = std::string(file);
    return BadInput(*p);
  }
  return absl::Status(status.code(),
                      absl::StrCat(std::string(file), ": ", status.message()));
}

}  // namespace atod
