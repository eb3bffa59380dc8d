#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/security.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/server.h"

namespace atod::rpc {

struct ServerOptions {
  // "HOST:PORT"; port 0 takes a free one.
  std::string address;
  // Not owned; must outlive the server.
  std::vector<grpc::Service*> services;
  // Answers methods that no service has (weights' Fetch); may be null. Not
  // owned.
  grpc::CallbackGenericService* generic = nullptr;
  Security security{};
  // What health checks say at first.
  bool serving = true;
};

// A running gRPC server with health service (grpc.health.v1) and reflection.
// Thread-safe. The destructor shuts down at once.
class RpcServer {
 public:
  ~RpcServer();

  uint16_t port() const { return port_; }
  // "HOST:PORT" with the port that was bound.
  const std::string& address() const { return address_; }

  // What health checks say from now on.
  void SetServing(bool serving);

  // Refuses new calls and waits for those under way; what still runs after
  // `grace` is cancelled. Long-lived streams must be ended by their service
  // first. Further calls return at once.
  void Shutdown(absl::Duration grace);

 private:
  friend absl::StatusOr<std::unique_ptr<RpcServer>> Listen(
      const ServerOptions& options);
  RpcServer(std::unique_ptr<grpc::Server> server, std::string address,
            uint16_t port);

  const std::string address_;
  const uint16_t port_;
  const std::unique_ptr<grpc::Server> server_;
};

// Starts a server. Errors: a refused address (INVALID_ARGUMENT), a port that is
// taken (ALREADY_EXISTS).
absl::StatusOr<std::unique_ptr<RpcServer>> Listen(const ServerOptions& options);

}  // namespace atod::rpc
