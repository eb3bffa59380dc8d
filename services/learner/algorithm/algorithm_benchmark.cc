// A full step: 128 trajectories of 50 turns of 150 tokens.

#include <vector>

#include "benchmark/benchmark.h"
#include "common/base/rng.h"
#include "common/device/cpu_device.h"
#include "services/learner/algorithm/advantages.h"
#include "services/learner/algorithm/token_weights.h"
#include "services/learner/recipe_for_test.h"

namespace atod::learner {
namespace {

constexpr int kTrajectories = 128;
constexpr int kTurns = 50;
constexpr int kTokens = 150;

StepBatch FullStep() {
  Rng rng(1);
  StepBatch batch;
  for (int i = 0; i < kTrajectories; ++i) {
    batch.trajectory_id.emplace_back("t");
    batch.group.push_back(i / 8);
    batch.reward.push_back(10.0 * rng.Below(2));
    for (int k = 0; k < kTurns; ++k) {
      batch.turn_index.push_back(k);
      batch.valid_action.push_back(rng.Below(10) > 0);
      for (int t = 0; t < kTokens; ++t) {
        batch.old_logprob.push_back(-3 * rng.Uniform());
        batch.teacher_logprob.push_back(-3 * rng.Uniform());
      }
      batch.token_begin.push_back(
          static_cast<int32_t>(batch.old_logprob.size()));
    }
    batch.turn_begin.push_back(static_cast<int32_t>(batch.turn_index.size()));
  }
  batch.rollout_logprob = batch.old_logprob;
  return batch;
}

// Every recipe, and the released profile, which has the most to do.
void BM_ComputeAdvantages(benchmark::State& state, const char* recipe,
                          const char* profile) {
  const StepBatch batch = FullStep();
  const auto device = MakeCpuDevice();
  Settings options;
  options["recipe"] = recipe;
  options["profile"] = profile;
  const Recipe made = RecipeFor(options);
  for (auto _ : state) {
    auto advantages = ComputeAdvantages(batch, made, made.At(1), *device);
    if (!advantages.ok()) state.SkipWithError("ComputeAdvantages failed");
    benchmark::DoNotOptimize(advantages);
  }
  state.SetItemsProcessed(state.iterations() * batch.num_tokens());
}
BENCHMARK_CAPTURE(BM_ComputeAdvantages, atod, "atod", "default")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_ComputeAdvantages, released, "atod", "released")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_ComputeAdvantages, grpo, "grpo", "default")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_ComputeAdvantages, sod, "sod", "default")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_ComputeAdvantages, token_batch, "atod_token", "default")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_ComputeAdvantages, token_trajectory, "atod_token_fair",
                  "default")
    ->Unit(benchmark::kMillisecond);

void BM_TokenLossWeights(benchmark::State& state, Aggregation how) {
  const StepBatch batch = FullStep();
  std::vector<int32_t> all;
  for (int i = 0; i < kTrajectories; ++i) all.push_back(i);
  for (auto _ : state)
    benchmark::DoNotOptimize(TokenLossWeights(batch, all, {how}));
  state.SetItemsProcessed(state.iterations() * batch.num_tokens());
}
BENCHMARK_CAPTURE(BM_TokenLossWeights, trajectory, Aggregation::kTrajectory)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_TokenLossWeights, micro_batch, Aggregation::kMicroBatch)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace atod::learner
