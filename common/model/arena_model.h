#pragma once

#include <string>
#include <utility>

#include "common/model/language_model.h"
#include "common/model/weights_io.h"

namespace atod::model {

// What both back ends do alike: everything about weights as such.
class ArenaModel : public LanguageModel {
 public:
  ArenaModel(ModelWeights weights, int64_t max_context, BackEnd back_end)
      : weights_(std::move(weights)),
        max_context_(max_context),
        back_end_(std::move(back_end)) {}

  const ModelConfig& config() const final { return weights_.config; }
  int64_t max_context() const final { return max_context_; }
  const BackEnd& back_end() const final { return back_end_; }
  ParameterArena& arena() final { return *weights_.arena; }

  absl::StatusOr<std::string> WeightsHash() final {
    return HashWeights(*weights_.arena);
  }
  absl::Status Install(const weights::WeightSnapshot& snapshot) final {
    const absl::Status imported = ImportWeights(*weights_.arena, snapshot);
    return imported.ok() ? ParametersChanged() : imported;
  }
  absl::StatusOr<weights::WeightSnapshot> Export(
      const std::string& dtype) final {
    return ExportWeights(*weights_.arena, dtype);
  }
  absl::Status Save(const std::string& dir, const std::string& dtype) final {
    return SaveWeights(weights_, dir, dtype);
  }

 private:
  ModelWeights weights_;
  const int64_t max_context_;
  const BackEnd back_end_;
};

}  // namespace atod::model
