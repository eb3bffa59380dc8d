#pragma once

#include "absl/status/status.h"
#include "common/config/config.h"

namespace atod::cli {

// Checks before anything starts, so that a mistake costs seconds. Each error
// names the key, and the file and line that it came from.

// The addresses and ports that this machine's services will use: well formed,
// allowed by rpc.insecure, no two alike, free, and /metrics can listen there.
// `learner_only`: the other services are elsewhere.
absl::Status CheckPorts(const config::LoadedConfig& loaded, bool learner_only);

// Folders of models and games are there, a folder of the run can be, and what
// the recipe needs.
absl::Status CheckInputs(const config::LoadedConfig& loaded);

// Opens what the run will open: models, tokenizers, games and their splits,
// stored episodes, skills; renders the first prompts of some games. Takes as
// long as the services take to load games. `warn`: what the services would warn
// of is told here.
absl::Status OpenInputs(const config::LoadedConfig& loaded, bool warn);

}  // namespace atod::cli
