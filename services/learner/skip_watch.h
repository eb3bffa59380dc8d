#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace atod::learner {

// Ends a run that learns nothing any more: whole steps of updates that were
// skipped because their gradient was not finite. A single one may be chance.
class SkipWatch {
 public:
  // `steps` of the run: all of a short one.
  explicit SkipWatch(uint32_t steps) : limit_(std::min(steps, uint32_t{3})) {}

  absl::Status Add(uint32_t step, double skipped, size_t updates) {
    const bool all = updates > 0 && skipped >= static_cast<double>(updates);
    in_a_row_ = all ? in_a_row_ + 1 : 0;
    if (!all || in_a_row_ < limit_) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "step ", step, ": gradient: found not finite in every update of ",
        in_a_row_, " steps in a row, expected finite: nothing is learned"));
  }

 private:
  const uint32_t limit_;
  uint32_t in_a_row_ = 0;
};

}  // namespace atod::learner
