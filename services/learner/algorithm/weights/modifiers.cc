#include "services/learner/algorithm/weights/modifiers.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace atod::learner {
namespace {

constexpr double kGuard = 1e-8;

// One weight and the tokens that it is the weight of.
struct WeightedUnit {
  double* weight;
  double tokens;
  int32_t turn_index;
};

std::vector<WeightedUnit> UnitsOf(const StepBatch& b, bool per_token, int i,
                                  std::vector<double>& weight) {
  std::vector<WeightedUnit> units;
  for (int k = b.turn_begin[i]; k < b.turn_begin[i + 1]; ++k) {
    const int32_t begin = b.token_begin[k], end = b.token_begin[k + 1];
    if (!per_token && begin < end) {
      units.push_back(
          {&weight[k], static_cast<double>(end - begin), b.turn_index[k]});
    }
    for (int32_t t = begin; per_token && t < end; ++t)
      units.push_back({&weight[t], 1, b.turn_index[k]});
  }
  return units;
}

void Keep(double fraction, std::vector<WeightedUnit>& units) {
  std::vector<double> sorted;
  for (const WeightedUnit& unit : units) sorted.push_back(*unit.weight);
  const size_t kept = static_cast<size_t>(
      std::ceil(fraction * static_cast<double>(sorted.size())));
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  for (WeightedUnit& unit : units)
    if (*unit.weight < sorted[kept - 1]) *unit.weight = 0;
}

void DivideByMean(std::vector<WeightedUnit>& units) {
  double sum = 0, tokens = 0;
  for (const WeightedUnit& unit : units) {
    sum += unit.tokens * *unit.weight;
    tokens += unit.tokens;
  }
  const double mean = sum / tokens + kGuard;
  for (WeightedUnit& unit : units) *unit.weight /= mean;
}

}  // namespace

void ModifyWeights(const StepBatch& batch, const WeightModifiers& m,
                   bool per_token, int step, std::vector<double>& weight) {
  if (m.kept_fraction == 1 && m.floor == 0 && !m.mean_preserving &&
      m.curriculum_steps == 0) {
    return;
  }
  for (int i = 0; i < batch.num_trajectories(); ++i) {
    std::vector<WeightedUnit> units = UnitsOf(batch, per_token, i, weight);
    if (units.empty()) continue;
    if (m.kept_fraction < 1) Keep(m.kept_fraction, units);
    if (m.floor > 0)
      for (WeightedUnit& u : units)
        *u.weight = (1 - m.floor) * *u.weight + m.floor;
    if (m.mean_preserving) {
      DivideByMean(units);
      for (WeightedUnit& u : units) *u.weight = std::clamp(*u.weight, 0.5, 2.0);
      DivideByMean(units);
    }
    if (m.curriculum_steps > 0) {
      const double depth = 1.5 + static_cast<double>(step) / m.curriculum_steps;
      for (WeightedUnit& u : units) {
        const double x = (depth - u.turn_index) / m.curriculum_softness;
        *u.weight *= std::clamp(1 / (1 + std::exp(-x)), 0.05, 1.0);
      }
    }
  }
}

}  // namespace atod::learner
