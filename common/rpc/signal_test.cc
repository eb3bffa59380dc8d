#include "common/rpc/signal.h"

#include <signal.h>
#include <unistd.h>

#include "gtest/gtest.h"

namespace atod::rpc {
namespace {

TEST(ShutdownSignals, TheFirstSignalDrainsAndReleasesWait) {
  int drained = 0;
  ShutdownSignals signals([&drained](int number) { drained = number; });
  kill(getpid(), SIGTERM);
  EXPECT_EQ(signals.Wait(), SIGTERM);
  EXPECT_EQ(drained, SIGTERM);
}

TEST(ShutdownSignals, WakeReleasesWaitWithoutASignal) {
  ShutdownSignals signals;
  signals.Wake();
  EXPECT_EQ(signals.Wait(), 0);
}

TEST(ShutdownSignalsDeathTest, ASecondSignalEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        ShutdownSignals signals;
        kill(getpid(), SIGINT);
        signals.Wait();
        kill(getpid(), SIGTERM);
        pause();  // the second signal ends the process
      },
      testing::ExitedWithCode(128 + SIGTERM), "");
}

}  // namespace
}  // namespace atod::rpc
