#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/model.h"
#include "common/weights/snapshot.h"

namespace atod::model {

// A copy of all parameters, converted to `dtype` ("float32", "bfloat16"), in
// the order of ParameterSpecs.
absl::StatusOr<weights::WeightSnapshot> ExportWeights(Qwen3& model,
                                                      const std::string& dtype);

// Overwrites the parameters, converting to the model's dtype. Names, shapes
// and checksums are verified first: on an error nothing has changed.
absl::Status ImportWeights(Qwen3& model,
                           const weights::WeightSnapshot& snapshot);

}  // namespace atod::model
