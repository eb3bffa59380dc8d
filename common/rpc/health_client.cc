#include "common/rpc/health_client.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/status_macros.h"
#include "common/rpc/address.h"
#include "common/rpc/channel.h"
#include "common/rpc/rpc_status.h"
#include "grpcpp/generic/generic_stub.h"

namespace atod::rpc {
namespace {

// HealthCheckResponse{status: SERVING}.
constexpr char kServing[] = "\x08\x01";

}  // namespace

absl::Status CheckHealth(const std::string& address, absl::Duration timeout) {
  // Nothing is told that plaintext could give away.
  ATOD_ASSIGN_OR_RETURN(const auto channel,
                        Connect(address, Security::Insecure()));
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  SetTimeout(context, timeout);
  const grpc::Slice nothing;  // HealthCheckRequest{}: the whole server
  const grpc::ByteBuffer request(&nothing, 1);
  grpc::ByteBuffer reply;
  grpc::Status status;
  absl::Notification done;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", grpc::StubOptions(),
                 &request, &reply, [&](grpc::Status s) {
                   status = std::move(s);
                   done.Notify();
                 });
  done.WaitForNotification();
  if (!status.ok()) return FromGrpc(status);
  grpc::Slice bytes;
  if (!reply.DumpToSingleSlice(&bytes).ok() ||
      std::string(bytes.begin(), bytes.end()) != kServing)
    return absl::UnavailableError(absl::StrCat(address, ": is not serving"));
  return absl::OkStatus();
}

absl::Status CheckMetrics(const std::string& address, absl::Duration timeout) {
  ATOD_ASSIGN_OR_RETURN(const Address peer, ParseAddress(address, "address"));
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (const int error = getaddrinfo(
          peer.host.c_str(), absl::StrCat(peer.port).c_str(), &hints, &found);
      error != 0)
    return absl::UnavailableError(
        absl::StrCat(address, ": ", gai_strerror(error)));
  const absl::Cleanup free_found = [found] { freeaddrinfo(found); };
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, address);
  const absl::Cleanup shut = [fd] { close(fd); };
  const timeval limit = absl::ToTimeval(timeout);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  const std::string request =
      absl::StrCat("GET /metrics HTTP/1.0\r\nHost: ", address, "\r\n\r\n");
  if (connect(fd, found->ai_addr, found->ai_addrlen) != 0 ||
      send(fd, request.data(), request.size(), MSG_NOSIGNAL) !=
          static_cast<ssize_t>(request.size()))
    return absl::ErrnoToStatus(errno, absl::StrCat(address, ": cannot ask"));
  // "HTTP/1.1 200 OK"
  char line[16] = {};
  const ssize_t n = recv(fd, line, sizeof(line) - 1, MSG_WAITALL);
  if (n < 0)
    return absl::ErrnoToStatus(errno, absl::StrCat(address, ": no answer"));
  if (!absl::StrContains(line, " 200 "))
    return absl::UnavailableError(absl::StrCat(address, ": found '", line,
                                               "', expected HTTP status 200"));
  return absl::OkStatus();
}

}  // namespace atod::rpc
