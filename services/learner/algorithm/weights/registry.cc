#include "services/learner/algorithm/weights/registry.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/problem.h"

// One line a piece: the function that returns it.
#define ATOD_WEIGHT_PIECES(X) \
  X(Tdur)                     \
  X(One)                      \
  X(TdurMean)                 \
  X(TokenBatch)               \
  X(TokenTrajectory)          \
  X(Sod)                      \
  X(TurnDiscount)

namespace atod::learner {

#define ATOD_DECLARE(Piece) WeightPiece Piece();
ATOD_WEIGHT_PIECES(ATOD_DECLARE)
#undef ATOD_DECLARE

const std::vector<WeightPiece>& WeightPieces() {
#define ATOD_LIST(Piece) Piece(),
  static const auto* const pieces =
      new std::vector<WeightPiece>{ATOD_WEIGHT_PIECES(ATOD_LIST)};
#undef ATOD_LIST
  return *pieces;
}

absl::StatusOr<WeightPiece> FindWeightPiece(const std::string& name) {
  for (const WeightPiece& piece : WeightPieces())
    if (piece.name == name) return piece;
  return BadInput(
      {.field = "algorithm.weights",
       .found = absl::StrCat("\"", name, "\""),
       .expected = absl::StrCat(
           "one of: ", absl::StrJoin(WeightPieces(), ", ",
                                     [](std::string* out, const auto& piece) {
                                       out->append(piece.name);
                                     }))});
}

}  // namespace atod::learner
