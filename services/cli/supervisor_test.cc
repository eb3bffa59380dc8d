#include "services/cli/supervisor.h"

#include <signal.h>
#include <unistd.h>

#include "common/base/file.h"
#include "gtest/gtest.h"

namespace atod::cli {
namespace {

ProcessSpec Shell(const std::string& name, const std::string& script) {
  return {name, {"/bin/sh", "-c", script}, {}, {}, "/dev/null"};
}

SupervisorEvent NextExit(Supervisor& s) { return s.Wait(absl::Seconds(20)); }

TEST(Supervisor, ReportsExitStatusAndSignalOfEachChild) {
  Supervisor s;
  ASSERT_TRUE(s.Start(Shell("a", "exit 3")).ok());
  SupervisorEvent e = NextExit(s);
  EXPECT_EQ(e.kind, SupervisorEvent::Kind::kExited);
  EXPECT_EQ(e.name, "a");
  EXPECT_EQ(e.exit_code, 3);
  EXPECT_FALSE(s.running("a"));

  ASSERT_TRUE(s.Start(Shell("b", "exec sleep 1000")).ok());
  EXPECT_TRUE(s.running("b"));
  s.Signal("b", SIGKILL);
  e = NextExit(s);
  EXPECT_EQ(e.name, "b");
  EXPECT_EQ(e.exit_code, 128 + SIGKILL);
}

TEST(Supervisor, LaterLivesGetTheExtraArguments) {
  const std::string log =
      testing::TempDir() + "/supervisor." + std::to_string(getpid());
  Supervisor s;
  ProcessSpec spec{
      "a", {"/bin/sh", "-c", "echo $0 $1", "x"}, {"again"}, {}, log};
  ASSERT_TRUE(s.Start(spec).ok());
  NextExit(s);
  ASSERT_TRUE(s.Start(spec).ok());
  NextExit(s);
  EXPECT_EQ(ReadFile(log).value(), "x\nx again\n");
  unlink(log.c_str());
}

TEST(Supervisor, AProcessThatIgnoresTermIsKilledAfterTheGrace) {
  Supervisor s;
  ASSERT_TRUE(
      s.Start(Shell("deaf", "trap '' TERM; while :; do sleep 1; done")).ok());
  s.StopAll(absl::Milliseconds(300));
  EXPECT_FALSE(s.running("deaf"));
}

TEST(Supervisor, AMissingProgramIsAnErrorThatNamesIt) {
  Supervisor s;
  const absl::Status status =
      s.Start({"x", {"/no/such/program"}, {}, {}, "/dev/null"});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(status.message().find("/no/such/program"), std::string::npos);
}

TEST(Supervisor, CtrlCIsAnEventAndLeavesTheChildrenAlive) {
  Supervisor s;
  ASSERT_TRUE(s.Start(Shell("a", "exec sleep 1000")).ok());
  kill(getpid(), SIGINT);
  EXPECT_EQ(s.Wait(absl::Seconds(20)).kind,
            SupervisorEvent::Kind::kInterrupted);
  EXPECT_TRUE(s.running("a"));
}

}  // namespace
}  // namespace atod::cli
