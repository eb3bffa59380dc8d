#include "common/rpc/rpc_status.h"

#include <string>

#include "atod/v1/common.pb.h"
#include "atod/v1/rpc_status.pb.h"
#include "common/base/problem.h"

namespace atod::rpc {

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // absl and gRPC number their codes alike.
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message(status.message());
  const Problem problem = ProblemOf(status);
  if (problem.expected.empty()) return {code, message};
  v1::Problem proto;
  proto.set_file(problem.file);
  proto.set_field(problem.field);
  proto.set_line(problem.line);
  proto.set_found(problem.found);
  proto.set_expected(problem.expected);
  v1::RpcStatus details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(proto);
  return {code, message, details.SerializeAsString()};
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  v1::RpcStatus details;
  v1::Problem proto;
  if (status.error_code() == grpc::StatusCode::INVALID_ARGUMENT &&
      details.ParseFromString(status.error_details()) &&
      details.details_size() > 0 && details.details(0).UnpackTo(&proto)) {
    return BadInput({proto.file(), proto.field(), proto.line(), proto.found(),
                     proto.expected()});
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

}  // namespace atod::rpc
