#include "common/device/cpu_device.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/algorithm/advantages.h"
#include "services/learner/algorithm/batch_for_test.h"
#include "services/learner/recipe_for_test.h"

namespace atod::learner {
namespace {

TEST(TurnDiscount, LaterTurnsWeighLess) {
  TestTrajectory trajectory;
  trajectory.turns = {TurnWith(.1, .2), TestTurn{}, TurnWith(.3, .1),
                      TurnWith(.2, .4)};
  Settings options;
  options["weights"] = "turn_discount";
  options["weight_parameter"] = .5;
  const auto a = ComputeAdvantages(MakeBatch({trajectory}), RecipeFor(options),
                                   1, *MakeCpuDevice());
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_THAT(a->w, testing::ElementsAre(1, 0, .25, .125));
}

}  // namespace
}  // namespace atod::learner
