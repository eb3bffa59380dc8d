#pragma once

#include <memory>

#include "common/model/exact/exact_obstacle.h"
#include "common/model/language_model.h"
#include "common/model/weights_io.h"

namespace atod::model {

// The back end cpu-exact: float32 on the CPU with the kernels of this folder,
// whose results depend on no batch, chunk, thread or session, to the bit.
// `weights`: float32 on the CPU, of a model without ExactObstacle.
std::unique_ptr<LanguageModel> MakeExactModel(ModelWeights weights,
                                              int64_t max_context);

}  // namespace atod::model
