// Household engine: how long a game takes to load and an episode to play.
// On the game $ATOD_BENCHMARK_GAME; without it on a kitchen of ALFWorld's from
// the compatibility data, else on a generated one.
#include <cstdlib>
#include <string>

#include "benchmark/benchmark.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "common/prompt/released.h"
#include "services/envs/alfworld/agent_view.h"
#include "services/envs/alfworld/world.h"
#include "services/envs/games/game_file.h"
#include "services/envs/games/generator.h"

namespace atod::envs {
namespace {

const std::string& GameJson() {
  static const auto* text = new std::string([] {
    const char* game = std::getenv("ATOD_BENCHMARK_GAME");
    const auto recorded =
        ReadFile(game != nullptr ? std::string(game)
                                 : CompatDataDir() +
                                       "/alfworld-golden/"
                                       "pick_heat_then_place_in_recep-Potato-"
                                       "None-SinkBasin-14.tw-pddl");
    if (recorded.ok()) return *recorded;
    games::GeneratorOptions options = games::FullSize();
    options.games = {1, 1, 1};
    return games::GameFileText(games::Generate(options)->games[0]);
  }());
  return *text;
}

void BM_LoadGame(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(ParseGame(GameJson()));
}
BENCHMARK(BM_LoadGame)->Unit(benchmark::kMillisecond);

void BM_Reset(benchmark::State& state) {
  const auto game = *ParseGame(GameJson());
  for (auto _ : state) {
    World world(game);
    benchmark::DoNotOptimize(world.Reset());
  }
}
BENCHMARK(BM_Reset)->Unit(benchmark::kMicrosecond);

// Random admissible commands, a new episode every 50.
void BM_Step(benchmark::State& state) {
  World world(*ParseGame(GameJson()));
  Rng rng(1);
  int turn = 0;
  for (auto _ : state) {
    if (turn++ % 50 == 0) benchmark::DoNotOptimize(world.Reset());
    const auto& admissible = world.admissible();
    const std::string command = admissible[rng.Below(admissible.size())];
    benchmark::DoNotOptimize(world.Step(command));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Step)->Unit(benchmark::kMicrosecond);

// The same with the fields of the observation.
void BM_StepWithFields(benchmark::State& state) {
  World world(*ParseGame(GameJson()));
  benchmark::DoNotOptimize(world.Reset());
  AgentView view(world.feedback(), "put a hot potato in sinkbasin.");
  Rng rng(1);
  for (auto _ : state) {
    const auto& admissible = world.admissible();
    const std::string command = admissible[rng.Below(admissible.size())];
    benchmark::DoNotOptimize(world.Step(command));
    view.Observe(command, world.feedback());
    benchmark::DoNotOptimize(view.Fields());
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_StepWithFields)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace atod::envs
