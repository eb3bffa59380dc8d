#pragma once

#include <memory>

#include "common/model/language_model.h"
#include "common/model/weights_io.h"

namespace atod::model {

// The back end torch: any dtype, CPU or CUDA, by the same operations.
// `weights` lie on the device that it runs on.
std::unique_ptr<LanguageModel> MakeTorchModel(ModelWeights weights,
                                              int64_t max_context);

}  // namespace atod::model
