#pragma once

#include <cstddef>
#include <cstdint>

#include "common/collective/communicator.h"
#include "common/device/device.h"

namespace atod {

// What libatod_cuda.so exports, through one C symbol (kPluginSymbol) that
// returns a pointer to this table. Program and plugin come from one build;
// `version` guards against a stale file.
struct DevicePlugin {
  static constexpr uint32_t kVersion = 1;
  // Opaque to everybody but NCCL; rank 0 makes one, all ranks join with it.
  static constexpr size_t kJoinTokenBytes = 128;

  uint32_t version;
  absl::StatusOr<std::unique_ptr<DeviceBackend>> (*open_device)();
  // Collectives on device memory over NCCL.
  absl::Status (*make_join_token)(char token[kJoinTokenBytes]);
  absl::StatusOr<std::unique_ptr<Communicator>> (*make_communicator)(
      const char token[kJoinTokenBytes], int rank, int world_size,
      absl::Duration timeout);
};

inline constexpr char kPluginFile[] = "libatod_cuda.so";
inline constexpr char kPluginSymbol[] = "AtodDevicePlugin";

// Opens the plugin once per process and keeps it open. Errors as OpenDevice.
// Thread-safe.
absl::StatusOr<const DevicePlugin*> LoadDevicePlugin();

}  // namespace atod
