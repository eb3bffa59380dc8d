#include "services/cli/progress.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

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
  StepFollower follower(dir_);
  EXPECT_TRUE(follower.Poll().empty());
  Write("{\"step\":1,\"a\":2}\n{\"step\":2", std::ios::app);
  auto steps = follower.Poll();
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].at("a"), 2);
  Write(",\"a\":3}\n", std::ios::app);
  ASSERT_EQ(follower.Poll().size(), 1u);
  Write("{\"step\":1}\n", std::ios::trunc);
  EXPECT_TRUE(follower.Poll().empty());
  Write("{\"step\":2}\n{\"step\":3}\n", std::ios::app);
  steps = follower.Poll();
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].at("step"), 3);
}

TEST_F(StepFollowerTest, JoinsTheTimesOfAStep) {
  StepFollower follower(dir_);
  Write("{\"step\":0,\"t\":5}\n{\"step\":1,\"t\":7}\n", std::ios::app,
        "/timings.jsonl");
  EXPECT_TRUE(follower.Poll().empty());
  Write("{\"step\":1,\"a\":2}\n", std::ios::app);
  const auto steps = follower.Poll();
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].at("a"), 2);
  EXPECT_EQ(steps[0].at("t"), 7);
}

TEST(StepLine, ShowsWhatTheStepHas) {
  EXPECT_EQ(StepLine({{"step", 3}, {"hybrid/kl_coef", 0.5}}, 10),
            "step    3/10  kl_coef 0.500");
}

TEST(TimeLeft, IsProportionalToWhatIsLeft) {
  EXPECT_EQ(TimeLeft(absl::Seconds(10), 0, 5), std::nullopt);
  EXPECT_EQ(TimeLeft(absl::Seconds(10), 1, 5), absl::Seconds(40));
  EXPECT_EQ(ShortDuration(absl::Seconds(372)), "6m12s");
}

}  // namespace
}  // namespace atod::cli
