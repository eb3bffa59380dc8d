#include "services/cli/log_follower.h"

#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::cli {
namespace {

class LogFollowerTest : public testing::Test {
 protected:
  LogFollowerTest() { std::ofstream(path_, std::ios::trunc); }
  void Write(const std::string& text) {
    std::ofstream(path_, std::ios::app) << text;
  }
  std::vector<std::string> Poll(LogFollower& follower) {
    std::vector<std::string> out;
    for (const LogFollower::Said& said : follower.Poll())
      out.push_back((said.error ? "E " : "W ") + said.text);
    return out;
  }
  const std::string path_ = testing::TempDir() + "/service.log";
};

TEST_F(LogFollowerTest, GivesNewCompleteWarningsAndErrorsOnly) {
  Write("warning: of an earlier life\n");
  LogFollower follower(path_);
  EXPECT_THAT(Poll(follower), testing::IsEmpty());
  Write("2026-01-01 info learner: warning: not at the start\nwarning: hal");
  EXPECT_THAT(Poll(follower), testing::IsEmpty());
  Write("f\nwarnings: 3\nerror: the end\n");
  EXPECT_THAT(Poll(follower), testing::ElementsAre("W half", "E the end"));
  EXPECT_THAT(Poll(follower), testing::IsEmpty());
}

TEST_F(LogFollowerTest, ControlBytesDoNotReachTheTerminal) {
  LogFollower follower(path_);
  Write("error: a game named \033[2J\r\n");
  EXPECT_THAT(Poll(follower),
              testing::ElementsAre("E a game named \\x1b[2J\\x0d"));
}

TEST_F(LogFollowerTest, AServiceThatHasNotWrittenYetHasSaidNothing) {
  LogFollower follower(path_ + ".none");
  EXPECT_THAT(Poll(follower), testing::IsEmpty());
}

}  // namespace
}  // namespace atod::cli
