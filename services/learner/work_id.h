#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "atod/v1/trajectory.pb.h"

namespace atod::learner {

// One unit of rollout work; attempts are retries of it. Orders like the
// canonical order of a step.
struct WorkId {
  v1::Purpose purpose = v1::TRAIN;
  uint32_t step = 0;
  uint32_t group = 0;
  uint32_t sample = 0;

  auto operator<=>(const WorkId&) const = default;
};

WorkId IdOf(const v1::Trajectory& trajectory);

// "STEP/GROUP/SAMPLE", "eval/STEP/GROUP/SAMPLE" for evaluation: how people and
// the audit commands name a trajectory.
std::string FormatId(const WorkId& id);
absl::StatusOr<WorkId> ParseId(std::string_view text);

}  // namespace atod::learner
