#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/collective/communicator.h"

namespace atod::cuda {

// DevicePlugin::make_join_token.
absl::Status MakeNcclToken(char* token);

// DevicePlugin::make_communicator. Blocks until all ranks have joined.
absl::StatusOr<std::unique_ptr<Communicator>> JoinNccl(const char* token,
                                                       int rank, int world_size,
                                                       absl::Duration timeout);

}  // namespace atod::cuda
