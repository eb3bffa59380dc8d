#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/learner/algorithm/weights/weight_piece.h"

namespace atod::learner {

// All weight pieces, in the order of the registry.
const std::vector<WeightPiece>& WeightPieces();

// INVALID_ARGUMENT names algorithm.weights and what there is.
absl::StatusOr<WeightPiece> FindWeightPiece(const std::string& name);

}  // namespace atod::learner
