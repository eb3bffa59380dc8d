#include "common/collective/store.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <string>
#include <utility>

#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "torch/csrc/distributed/c10d/TCPStore.hpp"

namespace atod::collective {
namespace {

// A socket bound to one address. c10d's own would be bound to all of the
// machine's, and the store has no authentication.
absl::StatusOr<int> BindSocket(const std::string& host, uint16_t port) {
  const std::string where = absl::StrCat(host, ":", port);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(host.c_str(), std::to_string(port).c_str(),
                                   &hints, &found);
      code != 0) {
    return absl::UnavailableError(
        absl::StrCat("rendezvous: ", where, ": ", gai_strerror(code)));
  }
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const bool bound =
      fd >= 0 && bind(fd, found->ai_addr, found->ai_addrlen) == 0;
  const int error = errno;
  freeaddrinfo(found);
  if (bound) return fd;
  if (fd >= 0) close(fd);
  return absl::UnavailableError(absl::StrCat("rendezvous: cannot listen on ",
                                             where, ": ", strerror(error)));
}

}  // namespace

absl::Status CheckRanks(const CommunicatorOptions& o) {
  if (o.world_size < 1 || o.rank < 0 || o.rank >= o.world_size)
    return BadInput({.file = "",
                     .field = "rank",
                     .line = 0,
                     .found = absl::StrCat(o.rank, " of ", o.world_size),
                     .expected = "a rank below the world size"});
  return absl::OkStatus();
}

absl::StatusOr<c10::intrusive_ptr<c10d::Store>> OpenStore(
    const CommunicatorOptions& options) {
  c10d::TCPStoreOptions store_options;
  store_options.port = options.store_port;
  store_options.isServer = options.rank == 0;
  store_options.numWorkers = static_cast<size_t>(options.world_size);
  store_options.waitWorkers = true;
  store_options.timeout = absl::ToChronoMilliseconds(options.timeout);
  if (options.rank == 0) {
    ATOD_ASSIGN_OR_RETURN(store_options.masterListenFd,
                          BindSocket(options.store_host, options.store_port));
  }
  c10::intrusive_ptr<c10d::Store> store;
  const std::string what = absl::StrCat("rendezvous at ", options.store_host,
                                        ":", options.store_port);
  ATOD_RETURN_IF_ERROR(Guarded(what.c_str(), [&] {
    store =
        c10::make_intrusive<c10d::TCPStore>(options.store_host, store_options);
    return absl::OkStatus();
  }));
  return store;
}

}  // namespace atod::collective
