#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "atod/v1/config.pb.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"

namespace atod::rpc {

// Who may talk to whom, and how what they say is kept from others; given to
// Connect and Listen. Today all is plaintext: on loopback, or beyond it where
// rpc.insecure allows that.
class Security {
 public:
  // Loopback only.
  Security() = default;
  explicit Security(const v1::RpcConfig& config)
      : insecure_(config.insecure()) {}
  // In a network that the caller trusts.
  static Security Insecure();

  // Refuses a peer or interface that is not to be used so. `field` names it.
  absl::Status CheckHost(const std::string& host,
                         const std::string& field) const;

  std::shared_ptr<grpc::ChannelCredentials> client() const {
    return grpc::InsecureChannelCredentials();
  }
  std::shared_ptr<grpc::ServerCredentials> server() const {
    return grpc::InsecureServerCredentials();
  }

 private:
  bool insecure_ = false;
};

}  // namespace atod::rpc
