#include <filesystem>
#include <string>

#include "benchmark/benchmark.h"
#include "services/envs/alfworld/alfworld_environment.h"
#include "services/envs/games/collection.h"
#include "services/envs/games/demos.h"
#include "services/envs/games/generator.h"

namespace atod::games {
namespace {

// Drawing games, each played once by the expert.
void BM_Generate(benchmark::State& state) {
  GeneratorOptions options = state.range(0) ? FullSize() : GeneratorOptions();
  options.games = {60, 0, 0};
  for (auto _ : state) {
    ++options.seed;
    benchmark::DoNotOptimize(Generate(options));
  }
  state.SetItemsProcessed(state.iterations() * options.games[0]);
}
BENCHMARK(BM_Generate)->ArgName("full")->Arg(0)->Arg(1);

// Rows of demonstrations, games parsed from their files.
void BM_PlayDemos(benchmark::State& state) {
  const std::string dir =
      (std::filesystem::temp_directory_path() / "atod_games_benchmark")
          .string();
  std::filesystem::remove_all(dir);
  GeneratorOptions options;
  options.games = {60, 0, 0};
  if (!WriteCollection(*Generate(options), dir).ok()) {
    state.SkipWithError("cannot write games");
    return;
  }
  envs::AlfworldOptions env_options;
  env_options.data = dir;
  env_options.prompt_set = "compact";
  env_options.cached_games = 1;
  const auto env = *envs::AlfworldEnvironment::Open(env_options);
  DemoOptions demo;
  demo.count = 60;
  demo.forget = {0, 0.4, 0.4, 0.4, 0.4, 0.4};
  int64_t rows = 0;
  for (auto _ : state) {
    ++demo.seed;
    rows += PlayDemos(*env, demo, [](const auto&) {
              return absl::OkStatus();
            })->rows;
  }
  state.SetItemsProcessed(rows);
  std::filesystem::remove_all(dir);
}
BENCHMARK(BM_PlayDemos);

}  // namespace
}  // namespace atod::games
