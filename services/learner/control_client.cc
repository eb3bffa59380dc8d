#include "services/learner/control_client.h"

#include "atod/v1/learner.grpc.pb.h"
#include "common/base/status_macros.h"
#include "common/rpc/channel.h"
#include "common/rpc/rpc_status.h"

namespace atod::learner {

absl::StatusOr<v1::StatusReply> FetchStatus(const std::string& address,
                                            const rpc::Security& security) {
  ATOD_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                        rpc::Connect(address, security, "--learner"));
  grpc::ClientContext context;
  rpc::SetTimeout(context, absl::Seconds(10));
  v1::StatusReply reply;
  const grpc::Status status =
      v1::ControlService::NewStub(channel)->Status(&context, {}, &reply);
  if (!status.ok()) {
    return absl::Status(rpc::FromGrpc(status).code(),
                        address + ": " + status.error_message());
  }
  return reply;
}

}  // namespace atod::learner
