#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"

namespace atod::learner {

// The numbers of a configuration that follow a schedule, at one step.
struct StepSettings {
  double lr = 0;
  double kl_coef = 0;  // kappa (Eq. 11)
  double rl_coef = 0;  // rho (Eq. 12)
};

// Of training step `step`, from 1; a pure function. INVALID_ARGUMENT when the
// configuration names no recipe.
absl::StatusOr<StepSettings> SettingsAt(const v1::RunConfig& config,
                                        uint32_t step);

// What a person should hear when a run goes on after step `done` with another
// configuration, one line each: every changed key (but the name) with both
// values, and every schedule that jumps.
absl::StatusOr<std::vector<std::string>> DescribeChanges(
    const v1::RunConfig& before, const v1::RunConfig& after, uint32_t done);

}  // namespace atod::learner
