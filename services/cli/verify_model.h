#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace atod::cli {

struct TensorRow {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
  std::string hash;  // XXH3-128
};

struct ModelReport {
  std::vector<TensorRow> tensors;  // in the architecture's order, others last
  size_t manifest_files = 0;
  bool has_manifest = false;
  std::vector<std::string> faults;  // a line each; empty: the model is good
};

// Opens the model folder DIR, or DIR/model of a run's checkpoint, and accounts
// for everything in it: each tensor that config.json calls for, of the right
// shape, a floating dtype and finite values, and no other; the tokenizer, if
// there is one, inside the vocabulary; the files that MANIFEST.json lists, if
// there is one. NOT_FOUND when there is no such folder; all else is a fault in
// the report.
absl::StatusOr<ModelReport> VerifyModel(const std::string& dir);

}  // namespace atod::cli
