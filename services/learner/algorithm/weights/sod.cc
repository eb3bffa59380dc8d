// SOD (arXiv 2605.07725): a turn that diverges more than the first one is
// damped in proportion, one that diverges less is raised to at most 1 + delta.
// The running product of the paper's Eq. 7 is not clipped on the way, so it
// telescopes: w_k = min((d_1 + e) / (d_k + e), 1 + delta).
#include <algorithm>
#include <cmath>

#include "services/learner/algorithm/weights/weight_piece.h"

namespace atod::learner {
namespace {

constexpr double kEpsilon = 1e-6;

std::vector<double> Stepwise(const WeightContext& in) {
  const StepBatch& b = in.batch;
  std::vector<double> first(b.num_trajectories());
  for (int i = 0; i < b.num_trajectories(); ++i) {
    int k = b.turn_begin[i];
    while (k < b.turn_begin[i + 1] && b.token_begin[k] == b.token_begin[k + 1])
      ++k;
    if (k < b.turn_begin[i + 1]) first[i] = in.statistics.d[k];
  }
  const double most = 1 + in.options.sod.delta;
  return WeighFilledTurns(b, [&](int i, int k) {
    return std::min((first[i] + kEpsilon) / (in.statistics.d[k] + kEpsilon),
                    most);
  });
}

// min + (max - min) sigmoid(-slope A): less of the teacher where the group
// advantage is high.
std::vector<double> Gated(const WeightContext& in) {
  const SodOptions& sod = in.options.sod;
  const double low = sod.gate_min, high = sod.gate_max;
  return WeighFilledTurns(in.batch, [&](int, int k) {
    const double x = sod.gate_slope * in.group_advantage[k];
    return low + (high - low) / (1 + std::exp(x));
  });
}

std::vector<double> Weigh(const WeightContext& in) {
  switch (in.options.sod.mode) {
    case SodOptions::Mode::kStepwise:
      return Stepwise(in);
    case SodOptions::Mode::kUniform:
      return WeighFilledTurns(in.batch, [](int, int) { return 1.0; });
    case SodOptions::Mode::kGated:
      break;
  }
  return Gated(in);
}

}  // namespace

WeightPiece Sod() {
  return {.name = "sod",
          .scope = WeightScope::kGroup,
          .needs_teacher = true,
          .weigh = Weigh};
}

}  // namespace atod::learner
