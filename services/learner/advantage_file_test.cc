#include "services/learner/advantage_file.h"

#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::learner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class AdvantageFileTest : public testing::Test {
 protected:
  ~AdvantageFileTest() override { std::filesystem::remove(path_); }
  const std::string path_ =
      testing::TempDir() + "advantages." + std::to_string(getpid());
};

TEST_F(AdvantageFileTest, ReadsWhatItWritesWithoutRowsThatStandTwice) {
  StepBatch batch;
  batch.trajectory_id = {"1/0/0", "1/0/1"};
  batch.group = {0, 0};
  batch.reward = {10, 0};
  batch.turn_begin = {0, 3, 4};
  batch.turn_index = {0, 1, 0, 0};  // the third row is turn 0 again
  batch.token_begin = {0, 1, 3, 4, 4};
  batch.old_logprob = {-1, -2, -3, -1};
  Advantages a;
  a.shaped_reward = {10, -1};
  a.grpo = {1, -1};
  a.d = {0.5, NAN, 0.5, 0};
  a.h = a.d_norm = a.h_norm = {0, 0, 0, 0};
  a.w = {1, 2, 1, 0};
  a.advantage = {0.25, 0.5, 0.75, 0.25};
  ASSERT_TRUE(WriteAdvantages(path_, batch, a, {{1}, {0}}).ok());
  const auto stored = ReadAdvantages(path_);
  ASSERT_TRUE(stored.ok()) << stored.status();
  ASSERT_EQ(stored->size(), 2u);
  const StoredAdvantages& first = (*stored)[0];
  EXPECT_EQ(first.id, "1/0/0");
  EXPECT_EQ(first.update, 1);
  EXPECT_EQ(first.grpo_advantage, 1);
  ASSERT_EQ(first.turns.size(), 2u);
  EXPECT_EQ(first.turns[1].index, 1u);
  EXPECT_TRUE(std::isnan(first.turns[1].d));
  EXPECT_EQ(first.turns[1].w, 2);
  EXPECT_THAT(first.turns[1].advantages, ElementsAre(0.5, 0.75));
  EXPECT_THAT((*stored)[1].turns[0].advantages, ElementsAre());
}

TEST_F(AdvantageFileTest, ALineThatIsNoTrajectoryIsRefusedWithItsNumber) {
  ASSERT_TRUE(
      WriteFileAtomic(path_, "{\"id\":\"1/0/0\",\"turns\":[]}\n{\"id\":\"1/0")
          .ok());
  EXPECT_THAT(ReadAdvantages(path_).status().message(),
              HasSubstr(path_ + ":2: "));
}

}  // namespace
}  // namespace atod::learner
