#include "common/rpc/channel.h"

#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "grpcpp/create_channel.h"

namespace atod::rpc {

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(
    const std::string& address, const Security& security,
    const std::string& field) {
  ATOD_ASSIGN_OR_RETURN(const Address parsed, ParseAddress(address, field));
  ATOD_RETURN_IF_ERROR(CheckPeer(parsed, security, field));
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
  return grpc::CreateCustomChannel(parsed.ToString(), security.client(), args);
}

absl::Status CheckPeer(const Address& peer, const Security& security,
                       const std::string& field) {
  if (peer.port == 0)
    return BadInput({"", field, 0, peer.ToString(), "a port from 1 to 65535"});
  return security.CheckHost(peer.host, field);
}

void SetTimeout(grpc::ClientContext& context, absl::Duration timeout) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

}  // namespace atod::rpc
