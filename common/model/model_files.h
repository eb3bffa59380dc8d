#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/model_config.h"

namespace atod::model {

// Whole model folders, for callers without torch.

// Fresh weights (InitModel) of `config` in `out_dir`, float32.
absl::Status CreateModel(const ModelConfig& config, const std::string& init,
                         uint64_t seed, const std::string& out_dir);

// Reads and checks the model of `from` and writes it to `to` in `dtype`
// ("float32", "bfloat16", empty: as it is).
absl::Status ConvertModel(const std::string& from, const std::string& to,
                          const std::string& dtype);

// Copies the files of `from` that are neither weights nor config.json: the
// tokenizer, its settings and templates.
absl::Status CopyTokenizerFiles(const std::string& from, const std::string& to);

}  // namespace atod::model
