#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"
#include "services/envs/environment.h"

namespace atod::envs {

// The environment that a run's configuration names.
absl::StatusOr<std::shared_ptr<const Environment>> OpenEnvironment(
    const v1::EnvConfig& config);

}  // namespace atod::envs
