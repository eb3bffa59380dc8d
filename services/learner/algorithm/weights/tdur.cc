// T-DUR (Eq. 13-16) and its two ablations.
#include "services/learner/algorithm/weights/weight_piece.h"

namespace atod::learner {
namespace {

std::vector<double> FromDevice(const WeightContext& in) {
  return in.statistics.w;
}

// The token-weighted mean of T-DUR's weights for every turn of a trajectory:
// the strength of T-DUR without its choice of turns.
std::vector<double> MeanOfTrajectory(const WeightContext& in) {
  const StepBatch& b = in.batch;
  std::vector<double> mean(b.num_trajectories());
  for (int i = 0; i < b.num_trajectories(); ++i) {
    double sum = 0, tokens = 0;
    for (int k = b.turn_begin[i]; k < b.turn_begin[i + 1]; ++k) {
      const double n = b.token_begin[k + 1] - b.token_begin[k];
      sum += n * in.statistics.w[k];
      tokens += n;
    }
    mean[i] = tokens > 0 ? sum / tokens : 0;
  }
  return WeighFilledTurns(b, [&](int i, int) { return mean[i]; });
}

}  // namespace

WeightPiece Tdur() {
  return {.name = "tdur",
          .scope = WeightScope::kTrajectory,
          .uses_tdur = true,
          .needs_teacher = true,
          .weigh = FromDevice};
}

// Without T-DUR the device's weights are 1.
WeightPiece One() {
  return {.name = "one", .scope = WeightScope::kTurn, .weigh = FromDevice};
}

WeightPiece TdurMean() {
  return {.name = "tdur_mean",
          .scope = WeightScope::kTrajectory,
          .uses_tdur = true,
          .needs_teacher = true,
          .weigh = MeanOfTrajectory};
}

}  // namespace atod::learner
