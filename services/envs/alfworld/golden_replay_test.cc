#include "services/envs/alfworld/golden_replay.h"

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "common/prompt/released.h"
#include "gtest/gtest.h"

namespace atod::envs {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> Goldens() {
  std::vector<std::string> out;
  for (const char* sub : {"alfworld-golden", "textworld-pddl"}) {
    std::error_code error;
    for (const auto& entry :
         fs::directory_iterator(fs::path(CompatDataDir()) / sub, error))
      if (entry.path().string().ends_with(".golden.json"))
        out.push_back(entry.path().string());
  }
  return out;
}

TEST(GoldenReplayTest, EveryRecordedEpisodeReplaysWithoutDifference) {
  const std::vector<std::string> goldens = Goldens();
  if (goldens.empty()) {
    std::puts("SKIPPED: no compatibility data");
    GTEST_SKIP();
  }
  ReplayCounts counts;
  for (const std::string& golden : goldens) {
    const absl::Status status = ReplayGolden(golden, StartLocally, counts);
    ASSERT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(counts.differences, 0) << counts.first_difference;
  EXPECT_GT(counts.steps, 1000);
}

// An environment whose every observation says "yes".
absl::StatusOr<ReplayEpisode> StartYes(const GoldenGame&, uint32_t) {
  Observation yes;
  yes.text = "yes";
  return ReplayEpisode{
      yes, [yes](uint32_t, const std::string&) -> absl::StatusOr<Observation> {
        return yes;
      }};
}

std::string Golden(const std::string& feedback) {
  const std::string path = ::testing::TempDir() + "/x.golden.json";
  const std::string common =
      R"(", "admissible_commands": [], "won": false, "score": 0, )"
      R"("done": false, "command": "go"})";
  const std::string json =
      R"({"game": "x", "demangled": true, "episodes": [{"label": "one", )"
      R"("initial": {"feedback": "yes)" +
      common + R"(, "steps": [{"feedback": ")" + feedback + common + "]}]}";
  EXPECT_TRUE(WriteFileAtomic(path, json).ok());
  return path;
}

TEST(GoldenReplayTest, ADifferenceIsCountedAndShown) {
  ReplayCounts counts;
  ASSERT_TRUE(ReplayGolden(Golden("yes"), StartYes, counts).ok());
  EXPECT_EQ(counts.differences, 0);
  ASSERT_TRUE(ReplayGolden(Golden("no"), StartYes, counts).ok());
  EXPECT_EQ(counts.episodes, 2);
  EXPECT_EQ(counts.steps, 2);
  EXPECT_EQ(counts.differences, 1);
  EXPECT_NE(counts.first_difference.find("recorded \"no\""), std::string::npos);
}

TEST(GoldenReplayTest, ABrokenGoldenFileIsNamed) {
  const std::string path = ::testing::TempDir() + "/broken.golden.json";
  ReplayCounts counts;
  for (const char* json : {"{", "[]", R"({"game": 3})"}) {
    ASSERT_TRUE(WriteFileAtomic(path, json).ok());
    const absl::Status status = ReplayGolden(path, StartYes, counts);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("broken.golden.json"),
              absl::string_view::npos);
  }
}

}  // namespace
}  // namespace atod::envs
