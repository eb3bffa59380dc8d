// Discounting by turn: w_k = g^k with g = algorithm.weight_parameter and k the
// turn's place in the episode, from 0. The example of docs/pieces.md.
#include <cmath>

#include "services/learner/algorithm/weights/weight_piece.h"

namespace atod::learner {
namespace {

std::vector<double> Weigh(const WeightContext& in) {
  return WeighFilledTurns(in.batch, [&](int, int k) {
    return std::pow(in.options.parameter, in.batch.turn_index[k]);
  });
}

}  // namespace

WeightPiece TurnDiscount() {
  return {.name = "turn_discount", .scope = WeightScope::kTurn, .weigh = Weigh};
}

}  // namespace atod::learner
