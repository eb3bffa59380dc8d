#include "services/learner/algorithm/token_weights.h"

#include <algorithm>

#include "common/device/kernels.h"

namespace atod::learner {
namespace {

using kernels::Range;

// Turns [begin, end) as one range of tokens.
Range TokensOf(const StepBatch& batch, int32_t begin, int32_t end) {
  return {batch.token_begin[begin], batch.token_begin[end]};
}

// Token means of every set, and then the mean of those: each set is a list of
// token ranges.
class MeanOfMeans {
 public:
  void StartSet() { sets_.emplace_back(); }
  void Add(Range tokens) {
    if (tokens.end == tokens.begin) return;
    sets_.back().ranges.push_back(tokens);
    sets_.back().tokens += tokens.end - tokens.begin;
  }
  // Every set that has tokens weighs `share` or an equal part of it.
  void Fill(double share, std::vector<double>& weight) const {
    double filled = 0;
    for (const Set& set : sets_) filled += set.tokens > 0;
    for (const Set& set : sets_)
      for (const Range& tokens : set.ranges)
        std::fill(weight.begin() + tokens.begin, weight.begin() + tokens.end,
                  share / (filled * set.tokens));
  }

 private:
  struct Set {
    std::vector<Range> ranges;
    double tokens = 0;
  };
  std::vector<Set> sets_;
};

}  // namespace

std::vector<double> TokenLossWeights(const StepBatch& batch,
                                     absl::Span<const int32_t> trajectories,
                                     const AggregationOptions& options) {
  std::vector<double> weight(batch.num_tokens(), 0.0);
  const auto turns_of = [&](int32_t i) {
    return Range{batch.turn_begin[i], batch.turn_begin[i + 1]};
  };
  if (options.how == Aggregation::kTrajectoryTurn) {
    double filled = 0;
    for (const int32_t i : trajectories) {
      const Range tokens = TokensOf(batch, turns_of(i).begin, turns_of(i).end);
      filled += tokens.end > tokens.begin;
    }
    for (const int32_t i : trajectories) {
      MeanOfMeans turns;
      for (int32_t k = turns_of(i).begin; k < turns_of(i).end; ++k) {
        turns.StartSet();
        turns.Add(TokensOf(batch, k, k + 1));
      }
      turns.Fill(1 / filled, weight);
    }
    return weight;
  }
  MeanOfMeans sets;
  int rows = 0;
  for (const int32_t i : trajectories) {
    const Range turns = turns_of(i);
    if (options.how == Aggregation::kTrajectory) {
      sets.StartSet();
      sets.Add(TokensOf(batch, turns.begin, turns.end));
      continue;
    }
    for (int32_t k = turns.begin; k < turns.end; ++k) {
      const bool starts =
          options.how == Aggregation::kTurn || rows == 0 ||
          (options.how == Aggregation::kMicroBatch && rows % options.rows == 0);
      if (starts) sets.StartSet();
      ++rows;
      sets.Add(TokensOf(batch, k, k + 1));
    }
  }
  sets.Fill(1, weight);
  return weight;
}

}  // namespace atod::learner
