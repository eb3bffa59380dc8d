#pragma once

#include "absl/status/status.h"
#include "atod/v1/config.pb.h"

namespace atod::cli {

// Opens what a run will open, so that a mistake is found before anything
// starts: folders of models and games, and what the recipe needs.
absl::Status CheckInputs(const v1::RunConfig& config);

// Whether the ports that the services of this machine will listen on are free.
absl::Status CheckPorts(const v1::RunConfig& config, bool learner_only);

}  // namespace atod::cli
