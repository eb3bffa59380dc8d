#include "services/learner/algorithm/dead_signal.h"

#include "gtest/gtest.h"

namespace atod::learner {
namespace {

std::map<std::string, double> Observe(DeadSignalTracker& tracker, double opd,
                                      double rl, double rl_coef = 1) {
  std::map<std::string, double> metrics = {{"hybrid/kl_coef", 1},
                                           {"hybrid/rl_coef", rl_coef},
                                           {"hybrid/opd_signal_abs_mean", opd},
                                           {"hybrid/rl_signal_abs_mean", rl}};
  tracker.Observe(metrics);
  return metrics;
}

TEST(DeadSignal, RaisesAfterItsPatienceAndClearsWithTheSignal) {
  DeadSignalTracker tracker(3);
  for (int step = 1; step <= 5; ++step) {
    const auto m = Observe(tracker, 1e-9, 0.5);
    EXPECT_EQ(m.at("health/dead_opd_signal"), step >= 3) << step;
    EXPECT_EQ(m.at("health/dead_rl_signal"), 0);
  }
  EXPECT_EQ(Observe(tracker, 0.1, 0.5).at("health/dead_opd_signal"), 0);
}

TEST(DeadSignal, ACoefficientOfZeroIsNotDead) {
  DeadSignalTracker tracker(1);
  EXPECT_EQ(Observe(tracker, 1, 0, 0).at("health/dead_rl_signal"), 0);
  EXPECT_EQ(Observe(tracker, 1, 0, 2).at("health/dead_rl_signal"), 1);
}

TEST(DeadSignal, ASmallCoefficientDoesNotHideASignal) {
  DeadSignalTracker tracker(1);
  EXPECT_EQ(Observe(tracker, 1, 1e-8, 1e-7).at("health/dead_rl_signal"), 0);
}

TEST(DeadSignal, AStepWithoutTokensSaysNothing) {
  DeadSignalTracker tracker(2);
  Observe(tracker, 0, 1);
  std::map<std::string, double> empty = {{"hybrid/kl_coef", 1},
                                         {"hybrid/rl_coef", 1}};
  tracker.Observe(empty);
  EXPECT_EQ(empty.at("health/dead_opd_signal"), 0);
  EXPECT_EQ(Observe(tracker, 0, 1).at("health/dead_opd_signal"), 1);
}

}  // namespace
}  // namespace atod::learner
