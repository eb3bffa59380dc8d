#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace atod::weights {

// One tensor of a weight stream (proto: atod.v1.TensorEntry).
struct TensorEntry {
  std::string name;
  std::string dtype;  // safetensors: "F32", "BF16"
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
  uint64_t offset = 0;  // in the stream
  uint64_t xxh3 = 0;    // XXH3-64 of the tensor's bytes
};

// All parameters of a model as one contiguous byte stream: the tensors back to
// back in entry order. `root_hash` is the identity of the weights.
struct WeightSnapshot {
  std::vector<TensorEntry> tensors;
  std::string data;
  std::string root_hash;
};

// XXH3-128 over one line "name dtype [shape] checksum" a tensor, sorted by
// name, so that the identity does not depend on the order of the stream.
std::string ComputeRootHash(const std::vector<TensorEntry>& tensors);

// XXH3-64 of `bytes`, the checksum in TensorEntry.
uint64_t TensorChecksum(std::string_view bytes);

// Entries tile the data without gaps, every checksum and the root hash fit.
// DATA_LOSS names the tensor that does not.
absl::Status VerifySnapshot(const WeightSnapshot& snapshot);

}  // namespace atod::weights
