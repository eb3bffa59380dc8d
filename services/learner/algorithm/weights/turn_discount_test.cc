#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/algorithm/advantages_for_test.h"
#include "services/learner/algorithm/batch_for_test.h"

namespace atod::learner {
namespace {

TEST(TurnDiscount, LaterTurnsWeighLess) {
  TestTrajectory trajectory;
  trajectory.turns = {TurnWith(.1, .2), TestTurn{}, TurnWith(.3, .1),
                      TurnWith(.2, .4)};
  Settings options;
  options["weights"] = "turn_discount";
  options["weight_parameter"] = .5;
  const Advantages a = Compute(MakeBatch({trajectory}), options, 1);
  EXPECT_THAT(a.w, testing::ElementsAre(1, 0, .25, .125));
}

}  // namespace
}  // namespace atod::learner
