#include "report/statistics.h"

#include <algorithm>
#include <cmath>

#include "common/base/rng.h"

namespace atod::report {
namespace {

// 2.5 % and 97.5 % of the resampled means.
Estimate Percentiles(double value, std::vector<double> means) {
  const auto at = [&](double share) {
    const size_t i = static_cast<size_t>(share * (means.size() - 1) + 0.5);
    std::nth_element(means.begin(), means.begin() + i, means.end());
    return means[i];
  };
  const double low = at(0.025);
  return {value, low, at(0.975)};
}

double MeanOf(const GameTable& table, const std::vector<uint32_t>& runs,
              const std::vector<uint32_t>& games) {
  double sum = 0;
  for (const uint32_t r : runs)
    for (const uint32_t g : games) sum += table[r][g];
  return sum / static_cast<double>(runs.size() * games.size());
}

// Games that every run of both has a number of.
std::vector<uint32_t> CommonGames(const GameTable& a, const GameTable& b) {
  std::vector<uint32_t> out;
  for (uint32_t g = 0; g < a[0].size(); ++g) {
    const auto has = [g](const std::vector<double>& run) {
      return !std::isnan(run[g]);
    };
    if (std::all_of(a.begin(), a.end(), has) &&
        std::all_of(b.begin(), b.end(), has)) {
      out.push_back(g);
    }
  }
  return out;
}

std::vector<uint32_t> Iota(size_t n) {
  std::vector<uint32_t> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<uint32_t>(i);
  return out;
}

// Fills `to` with members of `of`.
void Resample(Rng& rng, const std::vector<uint32_t>& of,
              std::vector<uint32_t>& to) {
  for (uint32_t& i : to) i = of[rng.Below(of.size())];
}

}  // namespace

double Mean(const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += v;
  return x.empty() ? NAN : sum / static_cast<double>(x.size());
}

Estimate Wilson(double wins, double n) {
  const double z = 1.96, p = wins / n;
  const double mid = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half =
      z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n);
  return {p, std::max(0.0, mid - half), std::min(1.0, mid + half)};
}

Estimate BootstrapMean(const std::vector<double>& x) {
  return PairedDifference({x}, {std::vector<double>(x.size(), 0.0)});
}

Estimate PairedDifference(const GameTable& a, const GameTable& b) {
  Rng rng(0);
  const std::vector<uint32_t> all = CommonGames(a, b);
  if (all.empty()) return {NAN, NAN, NAN};
  const std::vector<uint32_t> all_a = Iota(a.size()), all_b = Iota(b.size());
  std::vector<uint32_t> games = all, runs_a = all_a, runs_b = all_b;
  const auto difference = [&] {
    return MeanOf(a, runs_a, games) - MeanOf(b, runs_b, games);
  };
  const double value = difference();
  std::vector<double> means(kResamples);
  for (double& mean : means) {
    Resample(rng, all, games);
    if (runs_a.size() > 1) Resample(rng, all_a, runs_a);
    if (runs_b.size() > 1) Resample(rng, all_b, runs_b);
    mean = difference();
  }
  return Percentiles(value, std::move(means));
}

double BiasOfMaximum(double p, size_t games, size_t evaluations) {
  if (evaluations < 2 || games == 0) return 0;
  Rng rng(0);
  constexpr int kTrials = 1000;
  double sum = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    size_t most = 0;
    for (size_t e = 0; e < evaluations; ++e) {
      size_t wins = 0;
      for (size_t g = 0; g < games; ++g) wins += rng.Uniform() < p;
      most = std::max(most, wins);
    }
    sum += static_cast<double>(most) / static_cast<double>(games);
  }
  return sum / kTrials - p;
}

}  // namespace atod::report
