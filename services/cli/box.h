#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"

namespace atod::cli {

struct BoxOptions {
  // --config and --set as they were given, for the services.
  std::vector<std::string> files;
  std::vector<std::string> sets;
  std::string resume;         // as the learner takes it
  std::string fork;           // likewise
  bool learner_only = false;  // `atod train`
};

// Runs the services of a run on this machine until the learner is done, starts
// again what dies, and shows what happens. The exit status: 0, or 130 after
// Ctrl-C; an error when a service cannot go on.
absl::StatusOr<int> RunBox(const v1::RunConfig& config,
                           const BoxOptions& options);

}  // namespace atod::cli
