#include "services/cli/progress.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/base/file.h"
#include "gtest/gtest.h"

namespace atod::cli {
namespace {

class StepFollowerTest : public testing::Test {
 protected:
  StepFollowerTest() {
    dir_ = testing::TempDir() + "/progress." + std::to_string(getpid());
    std::filesystem::create_directories(dir_);
  }
  ~StepFollowerTest() override { std::filesystem::remove_all(dir_); }

  void Write(const std::string& text, std::ios::openmode mode,
             const std::string& file = "/metrics.jsonl") {
    std::ofstream(dir_ + file, mode | std::ios::binary) << text;
  }

  std::string dir_;
};

TEST_F(StepFollowerTest, GivesEachCompleteLineOnceEvenAfterAResumeCutTheFile) {
  Write("", std::ios::trunc);
  StepFollower follower(dir_, absl::FromUnixSeconds(100));
  EXPECT_TRUE(follower.Poll().empty());
  Write("{\"step\":1,\"a\":2}\n{\"step\":2", std::ios::app);
  auto steps = follower.Poll();
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].scalars.at("a"), 2);
  Write(",\"a\":3}\n", std::ios::app);
  ASSERT_EQ(follower.Poll().size(), 1u);
  Write("{\"step\":1}\n", std::ios::trunc);
  EXPECT_TRUE(follower.Poll().empty());
  Write("{\"step\":2}\n{\"step\":3}\n", std::ios::app);
  steps = follower.Poll();
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].step, 3u);
}

TEST_F(StepFollowerTest, JoinsTheTimesOfAStep) {
  StepFollower follower(dir_, absl::FromUnixSeconds(100));
  Write("{\"step\":0,\"t\":5}\n{\"step\":1,\"t\":7}\n", std::ios::app,
        "/timings.jsonl");
  EXPECT_TRUE(follower.Poll().empty());
  Write("{\"step\":1,\"a\":2}\n", std::ios::app);
  const auto steps = follower.Poll();
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].scalars.at("a"), 2);
  EXPECT_EQ(steps[0].scalars.at("t"), 7);
}

TEST_F(StepFollowerTest, StepsOfAnEarlierLifeAreNotNewUntilTheyAreDoneAgain) {
  const auto record = [&](const std::string& steps, const std::string& times) {
    ASSERT_TRUE(WriteFileAtomic(dir_ + "/timings.jsonl", times).ok());
    ASSERT_TRUE(WriteFileAtomic(dir_ + "/metrics.jsonl", steps).ok());
  };
  record("{\"step\":1}\n{\"step\":2}\n",
         "{\"step\":1,\"time\":50}\n{\"step\":2,\"time\":60}\n");
  StepFollower follower(dir_, absl::FromUnixSeconds(100));
  EXPECT_TRUE(follower.Poll().empty());
  EXPECT_EQ(follower.earlier(), 2u);
  // The resume goes on after step 1; both files are others of the same size.
  record("{\"step\":1}\n{\"step\":2}\n",
         "{\"step\":1,\"time\":50}\n{\"step\":2,\"time\":101}\n");
  const auto steps = follower.Poll();
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].step, 2u);
}

TEST_F(StepFollowerTest, AShortRunGivesAllItsStepsAtOnce) {
  StepFollower follower(dir_, absl::FromUnixSeconds(100));
  Write("{\"step\":0,\"time\":100}\n{\"step\":1,\"time\":101}\n", std::ios::app,
        "/timings.jsonl");
  Write("{\"step\":0}\n{\"step\":1}\n", std::ios::app);
  EXPECT_EQ(follower.Poll().size(), 2u);
  EXPECT_EQ(follower.earlier(), std::nullopt);
}

TEST(StepLine, ShowsWhatTheStepHas) {
  EXPECT_EQ(StepLine({3, 0, {{"hybrid/kl_coef", 0.5}}}, 10),
            "step    3/10  kl_coef 0.500");
}

TEST(StepLine, SaysWhatIsLeftOutOfItsNumbers) {
  EXPECT_EQ(StepLine({3,
                      0,
                      {{"episode/reward", 0.5},
                       {"episode/dropped", 2},
                       {"val/success_rate", 0.5},
                       {"val/dropped", 1}}},
                     10),
            "step    3/10  reward 0.50  | eval success 50.0%  without 1 games  "
            "| left out 2 episodes");
  EXPECT_EQ(StepLine({3, 0, {{"episode/dropped", 0}, {"val/dropped", 0}}}, 10),
            "step    3/10");
}

TEST(TimeLeft, IsProportionalToWhatIsLeft) {
  EXPECT_EQ(TimeLeft(absl::Seconds(10), 0, 5), std::nullopt);
  EXPECT_EQ(TimeLeft(absl::Seconds(10), 1, 5), absl::Seconds(40));
  EXPECT_EQ(ShortDuration(absl::Seconds(372)), "6m12s");
}

}  // namespace
}  // namespace atod::cli
