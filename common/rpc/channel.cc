#include "common/rpc/channel.h"

#include "common/base/status_macros.h"
#include "common/rpc/address.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace atod::rpc {

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(
    const std::string& address, bool insecure, const std::string& field) {
  ATOD_ASSIGN_OR_RETURN(const Address parsed, ParseAddress(address, field));
  ATOD_RETURN_IF_ERROR(CheckPeer(parsed, insecure, field));
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(kMaxMessageBytes);
  args.SetMaxSendMessageSize(kMaxMessageBytes);
  // Services talk to each other directly, whatever http_proxy says.
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // A busy peer may answer late; only a dead one is silent so long.
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 60'000);
  args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return grpc::CreateCustomChannel(parsed.ToString(),
                                   grpc::InsecureChannelCredentials(), args);
}

void SetTimeout(grpc::ClientContext& context, absl::Duration timeout) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

}  // namespace atod::rpc
