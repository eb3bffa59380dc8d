#include "absl/strings/str_cat.h"
#include "services/teacher/scorer.h"

namespace atod::teacher {

absl::Status Validate(const ScoreRequest& request, uint32_t vocab_size,
                      uint32_t max_context) {
  const size_t size = request.tokens.size();
  if (size < 2 || size > max_context) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokens: found ", size, " ids, expected 2 to ", max_context));
  }
  for (size_t i = 0; i < size; ++i) {
    if (request.tokens[i] < 0 ||
        static_cast<uint32_t>(request.tokens[i]) >= vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokens[", i, "]: found ", request.tokens[i],
                       ", expected 0 to less than ", vocab_size));
    }
  }
  if (request.spans.empty()) {
    return absl::InvalidArgumentError("spans: found none, expected one");
  }
  uint64_t end = 1;
  for (size_t i = 0; i < request.spans.size(); ++i) {
    const TokenSpan& span = request.spans[i];
    if (span.begin < end || span.length == 0 ||
        uint64_t{span.begin} + span.length > size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "spans[", i, "]: found ", span.length, " tokens from ", span.begin,
          ", expected at least one, from ", end, " or later, inside ", size));
    }
    end = uint64_t{span.begin} + span.length;
  }
  return absl::OkStatus();
}

}  // namespace atod::teacher
