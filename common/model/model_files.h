#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/model_config.h"
#include "common/model/model_folder.h"  // StopTokens, CheckModelFolder

namespace atod::model {

// Whole model folders, for callers without torch.

// Fresh weights (InitModel) of `config` in `out_dir`, float32, with the
// tokenizer of `tokenizer_dir` beside them when it is not empty.
absl::Status CreateModel(const ModelConfig& config, const std::string& init,
                         uint64_t seed, const std::string& out_dir,
                         const std::string& tokenizer_dir = "");

// Reads and checks the model of `from` and writes it to `to` in `dtype`
// ("float32", "bfloat16", empty: as it is), with all other files of the folder.
absl::Status ConvertModel(const std::string& from, const std::string& to,
                          const std::string& dtype);

}  // namespace atod::model
