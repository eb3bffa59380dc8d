#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/weights/snapshot.h"

namespace atod::weights {

// A snapshot as a safetensors file, written atomically.
absl::Status WriteSnapshotFile(const std::string& path,
                               const WeightSnapshot& snapshot);

// Reads what WriteSnapshotFile wrote. The identity is computed from the bytes:
// whoever knows which weights the file should hold compares the root hash. The
// order of the tensors is the file's.
absl::StatusOr<WeightSnapshot> ReadSnapshotFile(const std::string& path);

}  // namespace atod::weights
