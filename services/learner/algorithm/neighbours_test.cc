#include "services/learner/algorithm/neighbours.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::learner {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::Pointwise;

// Softmax of .2 -.4 .9, and a teacher.
const std::vector<double> kStudent = {0.2806966846, 0.1540496067, 0.5652537086};
const std::vector<double> kTeacher = {.2, .5, .3};

TEST(Neighbours, RlsdScalesAdvantagesByTheClippedGap) {
  const double gaps[] = {-.5, 0, .1, .5};
  const double up[] = {1.35, 1.5, 1.5788781886, 1.65};
  const double down[] = {-1.65, -1.5, -1.4286280635, -1.35};
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(RlsdAdvantage(1.5, gaps[i], .5, .2), up[i], 1e-10);
    EXPECT_NEAR(RlsdAdvantage(-1.5, gaps[i], .5, .2), down[i], 1e-10);
  }
}

TEST(Neighbours, StepsThatShareAnAnchorAreComparedWithEachOther) {
  EXPECT_THAT(AnchorAdvantages({9.5, 0}, false), ElementsAre(4.75, -4.75));
  EXPECT_THAT(AnchorAdvantages({9.5, 0}, true),
              Pointwise(DoubleNear(1e-10), {0.7071066759, -0.7071066759}));
  EXPECT_THAT(AnchorAdvantages({7}, true), ElementsAre(0));
}

TEST(Neighbours, SelectorsHaveTheirReferenceValues) {
  EXPECT_NEAR(Entropy(kTeacher), 1.0296530141, 1e-10);
  EXPECT_NEAR(Agreement(.2, kStudent[0]), 0.7125128687, 1e-9);
  EXPECT_EQ(Agreement(.5, kStudent[1]), 1);
  EXPECT_NEAR(Agreement(.3, kStudent[2]), 0.5307351290, 1e-9);
  EXPECT_NEAR(TopKReverseKl(kStudent, kTeacher, 2), 0.3520052988, 1e-9);
  EXPECT_NEAR(TopKReverseKl(kStudent, kTeacher, 3), 0.2718602547, 1e-9);
  // Mass of the teacher's top two.
  EXPECT_NEAR(kStudent[1] + kStudent[2], 0.7193033154, 1e-9);
}

}  // namespace
}  // namespace atod::learner
