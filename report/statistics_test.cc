#include "report/statistics.h"

#include <cmath>

#include "gtest/gtest.h"

namespace atod::report {
namespace {

TEST(Statistics, WilsonStaysInsideZeroAndOne) {
  const Estimate none = Wilson(0, 128), all = Wilson(128, 128);
  EXPECT_EQ(none.value, 0);
  // Not below, by rounding: it would be printed as -0.0.
  for (int n = 1; n <= 100; ++n) EXPECT_FALSE(std::signbit(Wilson(0, n).low));
  EXPECT_NEAR(none.high, 0.02914, 1e-4);
  EXPECT_NEAR(all.high, 1, 1e-12);
  // Half the width near 80 % is about 1.96 standard errors (spec V18: 3.54).
  const Estimate most = Wilson(0.8 * 128, 128);
  EXPECT_NEAR((most.high - most.low) / 2, 1.96 * 0.0354, 0.002);
}

TEST(Statistics, PairingTakesOutWhatTheGamesShare) {
  // b wins every game that a wins, and one in ten more.
  std::vector<double> a(200), b(200);
  for (size_t i = 0; i < 200; ++i) {
    a[i] = i % 2;
    b[i] = i % 2 == 1 || i % 20 == 0;
  }
  const Estimate paired = PairedDifference({b}, {a});
  EXPECT_NEAR(paired.value, 0.05, 1e-12);
  EXPECT_GT(paired.low, 0.02);
  EXPECT_LT(paired.high, 0.085);
  // Unpaired, the interval of one side alone is wider than that.
  const Estimate alone = BootstrapMean(a);
  EXPECT_GT(alone.high - alone.low, paired.high - paired.low);
}

TEST(Statistics, SeveralRunsWidenTheIntervalByTheirSpread) {
  const std::vector<double> none(100, 0.0), all(100, 1.0), zero(100, 0.0);
  const Estimate one = PairedDifference({none}, {zero});
  EXPECT_EQ(one.low, 0);
  EXPECT_EQ(one.high, 0);
  const Estimate three = PairedDifference({none, all, all}, {zero});
  EXPECT_NEAR(three.value, 2. / 3, 1e-12);
  EXPECT_LT(three.low, 0.34);
  EXPECT_EQ(three.high, 1);
}

TEST(Statistics, GamesThatOneSideLacksDoNotCount) {
  const Estimate e =
      PairedDifference({{1, NAN, 0, 1}, {1, 1, 0, 1}}, {{0, 0, NAN, 0}});
  EXPECT_EQ(e.value, 1);
  EXPECT_EQ(e.low, 1);
  EXPECT_EQ(e.high, 1);
  EXPECT_TRUE(std::isnan(PairedDifference({{NAN}}, {{1}}).value));
}

TEST(Statistics, SameInputSameInterval) {
  const std::vector<double> x = {0, 1, 1, 0, 1, 0, 0, 1};
  const Estimate a = BootstrapMean(x), b = BootstrapMean(x);
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
}

TEST(Statistics, MaximumIsBiasedAsTheProtocolArithmeticSays) {
  // Spec V18, points at 80 % and 128 tasks.
  EXPECT_NEAR(BiasOfMaximum(0.8, 128, 5), 0.041, 0.003);
  EXPECT_NEAR(BiasOfMaximum(0.8, 128, 10), 0.054, 0.003);
  EXPECT_NEAR(BiasOfMaximum(0.8, 128, 30), 0.072, 0.003);
  EXPECT_EQ(BiasOfMaximum(0.8, 128, 1), 0);
}

}  // namespace
}  // namespace atod::report
