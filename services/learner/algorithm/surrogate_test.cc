#include "services/learner/algorithm/surrogate.h"

#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/algorithm/batch_for_test.h"

namespace atod::learner {
namespace {

TEST(Surrogate, LossAndGradientAreTheReferenceOnes) {
  struct Case {
    double ratio, advantage, loss, gradient, loss_high_28;
  };
  for (const Case& c :
       {Case{1.0, 1, -1.0, -1.0, -1.0}, Case{1.5, 1, -1.2, 0, -1.28},
        Case{0.5, 1, -0.5, -0.5, -0.5}, Case{1.5, -1, 1.5, 1.5, 1.5},
        Case{0.5, -1, 0.8, 0, 0.8}, Case{4.0, -1, 4.0, 4.0, 4.0}}) {
    const TokenLoss loss = ClippedSurrogate(c.ratio, c.advantage, .2, .2);
    EXPECT_NEAR(loss.loss, c.loss, 1e-15);
    EXPECT_NEAR(loss.gradient, c.gradient, 1e-15);
    EXPECT_EQ(loss.clipped, c.gradient == 0);
    EXPECT_NEAR(ClippedSurrogate(c.ratio, c.advantage, .2, .28).loss,
                c.loss_high_28, 1e-15);
  }
  // On the boundary only the loss is defined.
  EXPECT_NEAR(ClippedSurrogate(1.2, 2, .2, .2).loss, -2.4, 1e-15);
  EXPECT_NEAR(ClippedSurrogate(0.8, -2, .2, .2).loss, 1.6, 1e-15);
}

// Two trajectories with token losses [[1,3],[2]] and [[-1],[-1,-1,-3],[0,0]].
const std::vector<double> kLosses = {1, 3, 2, -1, -1, -1, -3, 0, 0};

StepBatch TwoTrajectories() {
  const auto turn = [](int tokens) {
    return TestTurn{std::vector<double>(tokens, -1.0),
                    std::vector<double>(tokens, -1.0)};
  };
  return MakeBatch(
      {{.group = 0, .reward = 0, .turns = {turn(2), turn(1)}},
       {.group = 0, .reward = 0, .turns = {turn(1), turn(3), turn(2)}}});
}

double Aggregate(const std::vector<double>& weights) {
  return std::inner_product(weights.begin(), weights.end(), kLosses.begin(),
                            0.0);
}

TEST(Surrogate, AggregationsAreTheReferenceMeans) {
  const StepBatch batch = TwoTrajectories();
  EXPECT_NEAR(
      Aggregate(TokenLossWeights(batch, {0, 1}, Aggregation::kTrajectory)), 0.5,
      1e-12);
  EXPECT_NEAR(Aggregate(TokenLossWeights(batch, {0, 1}, Aggregation::kToken)),
              0.0, 1e-12);
}

TEST(Surrogate, WeightsOfAnUpdateAddUpToOneAndLeaveOthersOut) {
  Rng rng(3);
  const StepBatch batch = MakeBatch(RandomTrajectories(rng, 3, 4));
  for (const Aggregation how :
       {Aggregation::kTrajectory, Aggregation::kToken}) {
    const auto weights = TokenLossWeights(batch, {1, 5, 6}, how);
    EXPECT_NEAR(std::accumulate(weights.begin(), weights.end(), 0.0), 1, 1e-12);
    for (int t = 0; t < batch.token_begin[batch.turn_begin[1]]; ++t)
      EXPECT_EQ(weights[t], 0);
  }
}

TEST(Surrogate, ATrajectoryWithoutTokensDoesNotCount) {
  auto batch =
      MakeBatch({{.group = 0, .reward = 0, .turns = {TurnWith(.1, .1)}},
                 {.group = 0, .reward = 0, .turns = {TestTurn{}}}});
  for (const Aggregation how : {Aggregation::kTrajectory, Aggregation::kToken})
    EXPECT_THAT(TokenLossWeights(batch, {0, 1}, how),
                ::testing::ElementsAre(1.0));
}

}  // namespace
}  // namespace atod::learner
