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
  ParameterArena& arena() final {
    RestoreArena();
    return *weights_.arena;
  }

  absl::StatusOr<std::string> WeightsHash() final {
    return HashWeights(arena());
  }
  absl::Status Install(const weights::WeightSnapshot& snapshot) final {
    const absl::Status imported = ImportWeights(arena(), snapshot);
    return imported.ok() ? ParametersChanged() : imported;
  }
  absl::StatusOr<weights::WeightSnapshot> Export(
      const std::string& dtype) final {
    return ExportWeights(arena(), dtype);
  }
  absl::Status Save(const std::string& dir, const std::string& dtype) final {
    RestoreArena();
    return SaveWeights(weights_, dir, dtype);
  }

 protected:
  // Called before anybody reads or writes the arena: a back end that has laid
  // its memory out otherwise puts it back.
  virtual void RestoreArena() {}

 private:
  ModelWeights weights_;
  const int64_t max_context_;
  const BackEnd back_end_;
};

}  // namespace atod::model
