#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace atod::report {

// Bootstrap intervals are percentiles of so many resamples.
inline constexpr int kResamples = 10000;

// A value with its 95 % interval.
struct Estimate {
  double value = 0;
  double low = 0;
  double high = 0;
};

double Mean(const std::vector<double>& x);

// A proportion of `n` > 0 games with Wilson's interval.
Estimate Wilson(double wins, double n);

// The mean of `x` (not empty; NaN does not count); the interval resamples its
// members.
Estimate BootstrapMean(const std::vector<double>& x);

// One number a game, of every run (seed) of a group: [runs][games].
using GameTable = std::vector<std::vector<double>>;

// Mean of a - b over the same games, in the same order (all rows are of one
// length, not 0), without those that are NaN in any row: NaN when that leaves
// none. The interval resamples games, the same ones for both sides,
// and the runs of a side that has several.
Estimate PairedDifference(const GameTable& a, const GameTable& b);

// How much the largest of `evaluations` equal and independent evaluations of
// `games` games, each won with probability `p`, exceeds p on average.
double BiasOfMaximum(double p, size_t games, size_t evaluations);

}  // namespace atod::report
