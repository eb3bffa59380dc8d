// T-DUR's rule for tokens instead of turns: the ablation as the authors
// released it, and one that changes the unit and nothing else.
#include <algorithm>
#include <cmath>

#include "common/device/kernels.h"
#include "services/learner/algorithm/weights/weight_piece.h"

namespace atod::learner {
namespace {

using kernels::Range;

constexpr double kTailQuantile = 0.98;

// The q-quantile by linear interpolation between order statistics.
double Quantile(std::vector<double> x, double q) {
  const double at = q * static_cast<double>(x.size() - 1);
  const size_t below = static_cast<size_t>(at);
  std::nth_element(x.begin(), x.begin() + below, x.end());
  const double low = x[below];
  if (below + 1 == x.size()) return low;
  const double high = *std::min_element(x.begin() + below + 1, x.end());
  return low + (high - low) * (at - static_cast<double>(below));
}

struct Gaps {
  std::vector<double> d, h;  // [tokens]
};

Gaps TokenGaps(const StepBatch& b) {
  Gaps out;
  for (int t = 0; t < b.num_tokens(); ++t) {
    out.d.push_back(std::abs(b.old_logprob[t] - b.teacher_logprob[t]));
    out.h.push_back(-b.old_logprob[t]);
  }
  return out;
}

// Eq. 15 and 16 over the tokens of a range.
void Weigh(const Gaps& gaps, Range tokens, std::vector<double>& w) {
  const auto range_of = [&](const std::vector<double>& x) {
    const auto [low, high] =
        std::minmax_element(x.begin() + tokens.begin, x.begin() + tokens.end);
    return std::pair(*low, *high - *low);
  };
  if (tokens.begin == tokens.end) return;
  const auto [d_low, d_range] = range_of(gaps.d);
  const auto [h_low, h_range] = range_of(gaps.h);
  for (int t = tokens.begin; t < tokens.end; ++t) {
    const double d = d_range < 1e-8 ? 0.5 : (gaps.d[t] - d_low) / d_range;
    const double h = h_range < 1e-8 ? 0.5 : (gaps.h[t] - h_low) / h_range;
    w[t] = kernels::Score(kernels::TdurScore::kSoftOr, d, h);
  }
}

// Min-max over the batch, h cut at its 0.98 quantile, no guard. One outlier
// token makes every other d~ small, and so the whole term weak.
std::vector<double> OverBatch(const WeightContext& in) {
  const StepBatch& b = in.batch;
  std::vector<double> w(b.num_tokens());
  if (w.empty()) return w;
  Gaps gaps = TokenGaps(b);
  const double most = Quantile(gaps.h, kTailQuantile);
  for (double& h : gaps.h) h = std::min(h, most);
  Weigh(gaps, {0, b.num_tokens()}, w);
  return w;
}

// Min-max over the trajectory, where T-DUR's guards let it weigh at all.
std::vector<double> OverTrajectory(const WeightContext& in) {
  const StepBatch& b = in.batch;
  std::vector<double> w(b.num_tokens(), 1.0);
  const Gaps gaps = TokenGaps(b);
  for (int i = 0; i < b.num_trajectories(); ++i) {
    if (!in.statistics.active[i]) continue;
    Weigh(gaps,
          {b.token_begin[b.turn_begin[i]], b.token_begin[b.turn_begin[i + 1]]},
          w);
  }
  return w;
}

}  // namespace

WeightPiece TokenBatch() {
  return {.name = "token_batch",
          .scope = WeightScope::kBatch,
          .per_token = true,
          .uses_tdur = true,
          .needs_teacher = true,
          .weigh = OverBatch};
}

WeightPiece TokenTrajectory() {
  return {.name = "token_trajectory",
          .scope = WeightScope::kTrajectory,
          .per_token = true,
          .uses_tdur = true,
          .needs_teacher = true,
          .weigh = OverTrajectory};
}

}  // namespace atod::learner
