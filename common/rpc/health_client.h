#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace atod::rpc {

// Whether the server at `address` ("HOST:PORT") says that it serves
// (grpc.health.v1) within `timeout`. A stopped process does not answer, though
// its port takes connections. UNAVAILABLE when it says that it does not serve,
// else what the call ended with.
absl::Status CheckHealth(const std::string& address, absl::Duration timeout);

// The same for a process without a gRPC server: whether it answers
// http://HOST:PORT/metrics.
absl::Status CheckMetrics(const std::string& address, absl::Duration timeout);

}  // namespace atod::rpc
