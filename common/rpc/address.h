#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace atod::rpc {

struct Address {
  std::string host;  // IPv6 without brackets
  uint16_t port = 0;
  std::string ToString() const;  // "host:port", "[v6]:port"
};

// "HOST:PORT" or "[V6]:PORT". `field` names it in the refusal
// ("rpc.learner").
absl::StatusOr<Address> ParseAddress(const std::string& text,
                                     const std::string& field);

// Addresses by comma (rpc.envs); at least one.
absl::StatusOr<std::vector<Address>> ParseAddresses(const std::string& text,
                                                    const std::string& field);

// "localhost", 127.0.0.0/8 or ::1. Other names are not looked up.
bool IsLoopback(const std::string& host);

// Where a server listens: the interface `bind` (rpc.bind) with the port of its
// `address` (rpc.learner, …).
absl::StatusOr<std::string> ListenAddress(const std::string& bind,
                                          const std::string& address,
                                          const std::string& field);

// The same for the `index`-th (--index) of the addresses of several processes.
absl::StatusOr<std::string> ListenAddressAt(const std::string& bind,
                                            const std::string& addresses,
                                            uint32_t index,
                                            const std::string& field);

}  // namespace atod::rpc
