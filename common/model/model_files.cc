#include "common/model/model_files.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/model/model.h"
#include "common/model/torch_status.h"

namespace atod::model {

absl::Status CreateModel(const ModelConfig& config, const std::string& init,
                         uint64_t seed, const std::string& out_dir) {
  ATOD_ASSIGN_OR_RETURN(Qwen3 model, InitModel(config, init, seed));
  return SaveModel(model, out_dir, "float32");
}

absl::Status ConvertModel(const std::string& from, const std::string& to,
                          const std::string& dtype) {
  ATOD_ASSIGN_OR_RETURN(Qwen3 model, LoadModel(from, dtype));
  return SaveModel(model, to, DtypeName(model->parameters()[0].scalar_type()));
}

absl::Status CopyTokenizerFiles(const std::string& from,
                                const std::string& to) {
  namespace fs = std::filesystem;
  ATOD_RETURN_IF_ERROR(MakeDirs(to));
  std::error_code error;
  for (fs::directory_iterator it(from, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename();
    if (!it->is_regular_file(error) || name == "config.json" ||
        name.find(".safetensors") != std::string::npos ||
        name.ends_with(".bin"))
      continue;
    ATOD_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(it->path()));
    ATOD_RETURN_IF_ERROR(WriteFileAtomic(to + "/" + name, bytes));
  }
  if (error)
    return absl::NotFoundError(absl::StrCat(from, ": ", error.message()));
  return absl::OkStatus();
}

}  // namespace atod::model
