#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "atod/v1/learner.pb.h"

namespace atod::learner {

// Asks the learner at `address` for its status.
absl::StatusOr<v1::StatusReply> FetchStatus(const std::string& address,
                                            bool insecure);

}  // namespace atod::learner
