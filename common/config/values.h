#pragma once

#include <string>
#include <utility>
#include <vector>

#include "atod/v1/config.pb.h"

namespace atod::config {

// The set scalars of a configuration in the order of the file: dotted path
// ("teachers.0.path") and value, as config.resolved.yaml prints it.
using Values = std::vector<std::pair<std::string, std::string>>;
Values ValuesOf(const v1::RunConfig& config);

// What the episodes of a worker depend on beyond what a lease says: run name,
// model, environment, limits, sampling. A worker whose settings differ from the
// learner's plays another run.
Values PlaySettings(const v1::RunConfig& config);

// A key that two configurations do not agree on; "unset" where it has no value.
struct Difference {
  std::string key, before, after;
  // "KEY: BEFORE before, AFTER now"
  std::string ToString() const;
};
std::vector<Difference> Differences(const v1::RunConfig& before,
                                    const v1::RunConfig& after);

}  // namespace atod::config
