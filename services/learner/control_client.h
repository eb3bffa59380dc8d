#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "atod/v1/learner.pb.h"
#include "common/rpc/security.h"

namespace atod::learner {

// Asks the learner at `address` for its status.
absl::StatusOr<v1::StatusReply> FetchStatus(const std::string& address,
                                            const rpc::Security& security);

}  // namespace atod::learner
