#include "services/envs/alfworld/projection.h"

#include <cstdio>

#include "common/base/file.h"
#include "common/prompt/released.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace atod::envs {
namespace {

TEST(ProjectionTest, TheRecordedProjectionsAreMetToTheByte) {
  const auto bytes =
      ReadFile(CompatDataDir() + "/alfworld-golden/projection_golden.json");
  if (!bytes.ok()) {
    std::puts("SKIPPED: no compatibility data");
    GTEST_SKIP();
  }
  const auto golden = nlohmann::json::parse(*bytes);
  ASSERT_GT(golden.size(), 0u);
  for (const auto& one : golden) {
    const Projected projected = ProjectTagged(one["text"].get<std::string>());
    EXPECT_EQ(projected.action, one["action"].get<std::string>());
    EXPECT_EQ(projected.valid, one["valid"].get<int>() == 1);
  }
}

TEST(ProjectionTest, TheFallbackCountsCharactersNotBytes) {
  const Projected p = ProjectTagged("Ä" + std::string(29, 'B') + "É");
  EXPECT_EQ(p.action, std::string(29, 'b') + "é");
  EXPECT_FALSE(p.valid);
  // Bytes that are no text stay as they are.
  EXPECT_EQ(ProjectTagged("\xff\xc3").action, "\xff\xc3");
}

TEST(ProjectionTest, ACompactResponseIsOneLine) {
  EXPECT_EQ(ProjectBare(" take apple 1 from fridge 1 ").action,
            "take apple 1 from fridge 1");
  EXPECT_TRUE(ProjectBare(" look\n").valid);
  EXPECT_FALSE(ProjectBare("").valid);
  EXPECT_FALSE(ProjectBare(" \n").valid);
  EXPECT_FALSE(ProjectBare("look\nlook").valid);
}

}  // namespace
}  // namespace atod::envs
