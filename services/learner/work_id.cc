#include "services/learner/work_id.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/problem.h"

namespace atod::learner {

WorkId IdOf(const v1::Trajectory& t) {
  return {t.purpose(), t.id().step(), t.id().group(), t.id().sample()};
}

std::string FormatId(const WorkId& id) {
  return absl::StrCat(id.purpose == v1::EVAL ? "eval/" : "", id.step, "/",
                      id.group, "/", id.sample);
}

absl::StatusOr<WorkId> ParseId(std::string_view text) {
  std::vector<std::string> parts =
      absl::StrSplit(absl::string_view(text.data(), text.size()), '/');
  WorkId id;
  if (!parts.empty() && parts[0] == "eval") {
    id.purpose = v1::EVAL;
    parts.erase(parts.begin());
  }
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &id.step) ||
      !absl::SimpleAtoi(parts[1], &id.group) ||
      !absl::SimpleAtoi(parts[2], &id.sample)) {
    return BadInput(
        {.file = "",
         .field = "trajectory id",
         .found = std::string(text),
         .expected = "STEP/GROUP/SAMPLE or eval/STEP/GROUP/SAMPLE"});
  }
  return id;
}

}  // namespace atod::learner
