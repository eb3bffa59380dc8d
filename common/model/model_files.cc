#include "common/model/model_files.h"

#include "common/base/status_macros.h"
#include "common/model/torch_status.h"
#include "common/model/weights_io.h"

namespace atod::model {

absl::Status CreateModel(const ModelConfig& config, const std::string& init,
                         uint64_t seed, const std::string& out_dir,
                         const std::string& tokenizer_dir) {
  ATOD_RETURN_IF_ERROR(CheckModelTarget(tokenizer_dir, out_dir));
  ATOD_ASSIGN_OR_RETURN(const ModelWeights weights,
                        InitWeights(config, init, seed));
  ATOD_RETURN_IF_ERROR(SaveWeights(weights, out_dir, "float32"));
  return tokenizer_dir.empty() ? absl::OkStatus()
                               : CopyTokenizerFiles(tokenizer_dir, out_dir);
}

absl::Status ConvertModel(const std::string& from, const std::string& to,
                          const std::string& dtype) {
  ATOD_RETURN_IF_ERROR(CheckModelTarget(from, to));
  ATOD_ASSIGN_OR_RETURN(const ModelWeights weights,
                        LoadWeights(from, {.dtype = dtype}));
  ATOD_RETURN_IF_ERROR(
      SaveWeights(weights, to, DtypeName(weights.arena->values.scalar_type())));
  return CopyTokenizerFiles(from, to);
}

}  // namespace atod::model
