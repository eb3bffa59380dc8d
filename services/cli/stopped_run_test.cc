#include "services/cli/stopped_run.h"

#include <unistd.h>

#include <filesystem>

#include "absl/time/clock.h"
#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class StoppedRunTest : public testing::Test {
 protected:
  StoppedRunTest() {
    EXPECT_TRUE(MakeDirs(run_.logs()).ok());
    EXPECT_TRUE(MakeDirs(run_.checkpoints() + "/step-2").ok());
  }
  ~StoppedRunTest() override { std::filesystem::remove_all(run_.dir()); }
  void Write(const std::string& path, const std::string& text) {
    EXPECT_TRUE(WriteFileAtomic(path, text).ok());
  }
  std::string Describe() { return DescribeStoppedRun(run_, 4, absl::Now()); }

  const RunFolder run_{testing::TempDir() + "stopped." +
                       std::to_string(getpid())};
};

TEST_F(StoppedRunTest, SaysHowFarItCameWhyItEndedAndHowItGoesOn) {
  Write(run_.metrics(), "{\"step\":0}\n{\"step\":3,\"a\":1}\n{\"step\":4,\"");
  Write(run_.checkpoints() + "/step-2/MANIFEST.json", "{}");
  Write(run_.log("learner"), "error: one\nerror: the disk is full\n[info] x\n");
  EXPECT_THAT(
      Describe(),
      AllOf(HasSubstr("step 3 of 4 is the last recorded; nothing written "
                      "since 2"),
            HasSubstr("its learner's last error: the disk is full\n"),
            HasSubstr("`atod up --config " + run_.config() +
                      " --resume` goes on from " + run_.checkpoints() +
                      "/step-2\n")));
}

TEST_F(StoppedRunTest, WithoutACheckpointItBeginsAgain) {
  EXPECT_THAT(Describe(), AllOf(HasSubstr("no step is recorded"),
                                HasSubstr("--set name=NEW` begins again")));
}

TEST_F(StoppedRunTest, ARunThatIsDoneDoesNotGoOn) {
  Write(run_.metrics(), "{\"step\":4}\n");
  EXPECT_THAT(Describe(),
              AllOf(HasSubstr("the run is done"), Not(HasSubstr("--resume"))));
}

TEST_F(StoppedRunTest, ALearnerAtWorkHasTheFolder) {
  EXPECT_FALSE(IsLearnerAtWork(run_));
  {
    const auto lock = run_.Lock();
    EXPECT_TRUE(IsLearnerAtWork(run_));
  }
  EXPECT_FALSE(IsLearnerAtWork(run_));
}

}  // namespace
}  // namespace atod::cli
