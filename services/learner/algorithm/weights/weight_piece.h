#pragma once

#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "common/device/device.h"
#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

struct SodOptions {
  enum class Mode { kStepwise, kUniform, kGated };
  Mode mode = Mode::kStepwise;
  double delta = 0.2;  // of the stepwise mode
  double gate_min = 0, gate_max = 0, gate_slope = 0;
};

// What pieces take from the configuration.
struct WeightOptions {
  double parameter = 1;  // weight_parameter
  SodOptions sod;
};

// What a weight piece may look at.
struct WeightContext {
  const StepBatch& batch;
  const WeightOptions& options;
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
