#pragma once

#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "common/device/device.h"
#include "services/learner/algorithm/options.h"
#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

// What a weight piece may look at.
struct WeightContext {
  const StepBatch& batch;
  const AlgorithmOptions& options;
  // d, h, their norms and T-DUR's own weights, [turns].
  const StatisticsOutput& statistics;
  absl::Span<const double> group_advantage;  // [turns]
};

// What one weight depends on: nothing outside of it changes the weight.
enum class WeightScope { kTurn, kTrajectory, kGroup, kBatch };

// Weights of the distillation term. A piece is a file in this folder that
// defines a function returning its WeightPiece, and a line in registry.cc;
// docs/pieces.md walks through turn_discount.cc. Weights are at least 0 and 0
// for turns without tokens.
struct WeightPiece {
  std::string_view name;  // of algorithm.weights
  WeightScope scope = WeightScope::kTurn;
  bool per_token = false;  // [tokens] instead of [turns]
  bool uses_tdur = false;  // T-DUR is computed, with its guards
  bool needs_teacher = false;
  std::vector<double> (*weigh)(const WeightContext&) = nullptr;
};

// A weight of every turn with tokens, 0 elsewhere.
template <typename Function>
std::vector<double> WeighFilledTurns(const StepBatch& batch, Function f) {
  std::vector<double> out(batch.num_turns());
  for (int i = 0; i < batch.num_trajectories(); ++i)
    for (int k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k)
      out[k] = batch.token_begin[k] < batch.token_begin[k + 1] ? f(i, k) : 0.0;
  return out;
}

}  // namespace atod::learner
