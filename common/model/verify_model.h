#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace atod::model {

struct TensorRow {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
  std::string hash;  // XXH3-128
};

struct ModelReport {
  std::vector<TensorRow> tensors;    // in the architecture's order, others last
  std::vector<int32_t> stop_tokens;  // StopTokens
  bool has_tokenizer = false;
  std::vector<std::string> stop_texts;  // spelled; empty without a tokenizer
  int64_t padding_rows = 0;  // rows of embedding and head without a token
  size_t manifest_files = 0;
  bool has_manifest = false;
  std::vector<std::string> faults;  // a line each; empty: the model is good
};

// Opens the model folder DIR, or DIR/model of a run's checkpoint, and accounts
// for everything in it: each tensor that config.json calls for, of the right
// shape, a floating dtype and finite values, and no other; the tokenizer, if
// there is one, inside the vocabulary; what ends a response; the files that
// MANIFEST.json lists, if there is one. NOT_FOUND when there is no such folder;
// all else is a fault in the report.
absl::StatusOr<ModelReport> VerifyModel(const std::string& dir);

}  // namespace atod::model
