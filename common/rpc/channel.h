#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/address.h"
#include "common/rpc/security.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"

namespace atod::rpc {

// Largest message either way. Weights travel in 1 MiB chunks; a long growing
// trajectory with its log-probs is a few MiB.
inline constexpr int kMaxMessageBytes = 256 << 20;

// A channel to `address` ("HOST:PORT"), connected at the first call. What
// CheckPeer refuses is an error; `field` names the address there. A peer that
// comes back is reached within about a second; one that vanished without a word
// is noticed by keepalive in about 80 s.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(
    const std::string& address, const Security& security = {},
    const std::string& field = "address");

// Refuses a peer that cannot be called: port 0, or what `security` forbids.
absl::Status CheckPeer(const Address& peer, const Security& security,
                       const std::string& field);

// Gives a call its deadline, `timeout` from now.
void SetTimeout(grpc::ClientContext& context, absl::Duration timeout);

}  // namespace atod::rpc
