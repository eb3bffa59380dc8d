#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "common/engine/engine.h"
#include "common/model/model_folder.h"

namespace atod::engine {

absl::StatusOr<std::unique_ptr<ModelEngine>> OpenEngine(
    const std::string& model_dir, const EngineOptions& options) {
  ATOD_ASSIGN_OR_RETURN(std::unique_ptr<model::LanguageModel> model,
                        model::LanguageModel::Open(model_dir, options.model));
  ATOD_ASSIGN_OR_RETURN(const std::vector<int32_t> stop_tokens,
                        model::StopTokens(model_dir));
  return MakeEngine(std::move(model), stop_tokens, options);
}

}  // namespace atod::engine
