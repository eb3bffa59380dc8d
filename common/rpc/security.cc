#include "common/rpc/security.h"

#include "common/base/problem.h"
#include "common/rpc/address.h"

namespace atod::rpc {

Security Security::Insecure() {
  Security security;
  security.insecure_ = true;
  return security;
}

absl::Status Security::CheckHost(const std::string& host,
                                 const std::string& field) const {
  if (insecure_ || IsLoopback(host)) return absl::OkStatus();
  return BadInput({"", field, 0, host,
                   "a loopback address, or rpc.insecure: true in a network "
                   "that you trust"});
}

}  // namespace atod::rpc
