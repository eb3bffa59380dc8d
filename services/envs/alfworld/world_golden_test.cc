// Replays recorded episodes of the reference engine: every feedback, every
// admissible list, every goal flag, to the byte.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/envs/alfworld/world.h"

namespace atod::envs {
namespace {

namespace fs = std::filesystem;

fs::path DataFolder() {
  const char* folder = std::getenv("ATOD_COMPAT_DATA");
  return folder != nullptr ? folder : "../shared/data";
}

std::vector<fs::path> Goldens() {
  std::vector<fs::path> out;
  for (const char* sub : {"alfworld-golden", "textworld-pddl"}) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(DataFolder() / sub, error))
      if (entry.path().string().ends_with(".golden.json"))
        out.push_back(entry.path());
  }
  return out;
}

TEST(WorldGoldenTest, RecordedEpisodesReplayToTheByte) {
  const std::vector<fs::path> goldens = Goldens();
  if (goldens.empty()) {
    std::puts("SKIPPED: no compatibility data");
    GTEST_SKIP();
  }
  int steps = 0;
  for (const fs::path& path : goldens) {
    SCOPED_TRACE(path.string());
    const auto golden = nlohmann::json::parse(*ReadFile(path.string()));
    auto game = LoadGame(
        (path.parent_path() / golden["game"].get<std::string>()).string(),
        {.demangle = golden["demangled"].get<bool>()});
    ASSERT_TRUE(game.ok()) << game.status();
    for (const auto& episode : golden["episodes"]) {
      SCOPED_TRACE(episode["label"].get<std::string>());
      World world(*game);
      ASSERT_TRUE(world.Reset().ok());
      const auto& first = episode["initial"];
      EXPECT_EQ(world.feedback(), first["feedback"].get<std::string>());
      EXPECT_EQ(world.admissible(),
                first["admissible_commands"].get<std::vector<std::string>>());
      for (const auto& step : episode["steps"]) {
        ++steps;
        ASSERT_TRUE(world.Step(step["command"].get<std::string>()).ok());
        ASSERT_EQ(world.feedback(), step["feedback"].get<std::string>());
        ASSERT_EQ(world.won(), step["won"].get<bool>());
        ASSERT_EQ(world.admissible(),
                  step["admissible_commands"].get<std::vector<std::string>>());
      }
    }
  }
  EXPECT_GT(steps, 1000);
}

}  // namespace
}  // namespace atod::envs
