#include "services/learner/adamw_for_test.h"

#include <memory>

#include "common/base/status_macros.h"
#include "common/model/weights_io.h"
#include "services/learner/adamw.h"

namespace atod::learner {

absl::Status WriteRandomModel(const model::ModelConfig& config,
                              const std::string& dir) {
  ATOD_ASSIGN_OR_RETURN(const model::ModelWeights weights,
                        model::InitWeights(config, "hf", 1));
  return model::SaveWeights(weights, dir, "float32");
}

std::function<void()> MakeUpdate(model::LanguageModel& model) {
  const auto optimizer =
      std::make_shared<AdamW>(&model.arena(), AdamWOptions());
  return [&model, optimizer] {
    ClipGradNorm(model.arena(), 1);
    optimizer->Step(1e-3);
  };
}

}  // namespace atod::learner
