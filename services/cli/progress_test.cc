#include "services/cli/progress.h"

#include <unistd.h>

#include <fstream>

#include "gtest/gtest.h"

namespace atod::cli {
namespace {

std::string Path() {
  return testing::TempDir() + "/progress." + std::to_string(getpid());
}

void Write(const std::string& text, std::ios::openmode mode) {
  std::ofstream(Path(), mode | std::ios::binary) << text;
}

TEST(StepFollower, GivesEachCompleteLineOnceEvenAfterAResumeCutTheFile) {
  Write("", std::ios::trunc);
  StepFollower follower(Path());
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
  unlink(Path().c_str());
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
