#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "common/model/language_model.h"

// Torch and protobuf do not fit into one file: what plan_memory_test.cc needs
// of torch.
namespace atod::learner {

// Fresh float32 weights.
absl::Status WriteRandomModel(const model::ModelConfig& config,
                              const std::string& dir);

// Clips the gradients and makes an update, with an optimiser of its own, which
// is made now. `model` outlives it.
std::function<void()> MakeUpdate(model::LanguageModel& model);

}  // namespace atod::learner
