#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "common/collective/communicator.h"
#include "common/collective/store.h"
#include "common/device/plugin.h"

namespace atod {

absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(
    const CommunicatorOptions& options) {
  ATOD_RETURN_IF_ERROR(collective::CheckRanks(options));
  ATOD_ASSIGN_OR_RETURN(const DevicePlugin* plugin, LoadDevicePlugin());
  // The store lives until every rank has joined: joining is a barrier.
  ATOD_ASSIGN_OR_RETURN(c10::intrusive_ptr<c10d::Store> store,
                        collective::OpenStore(options));
  constexpr char kKey[] = "nccl_join_token";
  char token[DevicePlugin::kJoinTokenBytes] = {};
  if (options.rank == 0) ATOD_RETURN_IF_ERROR(plugin->make_join_token(token));
  ATOD_RETURN_IF_ERROR(collective::Guarded("rendezvous", [&]() -> absl::Status {
    if (options.rank == 0) {
      store->set(kKey,
                 std::vector<uint8_t>(std::begin(token), std::end(token)));
      return absl::OkStatus();
    }
    const std::vector<uint8_t> got = store->get(kKey);
    if (got.size() != sizeof(token))
      return absl::DataLossError("rendezvous: NCCL token of wrong size");
    std::copy(got.begin(), got.end(), token);
    return absl::OkStatus();
  }));
  return plugin->make_communicator(token, options.rank, options.world_size,
                                   options.timeout);
}

}  // namespace atod
