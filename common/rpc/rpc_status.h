#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace atod::rpc {

// The same code and message; a Problem travels in the details as
// google.rpc.Status with one atod.v1.Problem.
grpc::Status ToGrpc(const absl::Status& status);

// The inverse: ProblemOf() of the result gives the sender's Problem. Unknown
// or broken details are ignored.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace atod::rpc
