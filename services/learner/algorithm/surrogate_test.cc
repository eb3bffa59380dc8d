#include "services/learner/algorithm/surrogate.h"

#include <cmath>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/algorithm/aux_loss.h"
#include "services/learner/algorithm/batch_for_test.h"
#include "services/learner/algorithm/token_weights.h"

namespace atod::learner {
namespace {

TEST(Surrogate, LossAndGradientAreTheReferenceOnes) {
  struct Case {
    double ratio, advantage, loss, gradient, dual_loss, dual_gradient,
        loss_high_28;
  };
  SurrogateOptions plain, dual, high;
  dual.dual_clip = 3;
  high.clip_high = 0.28;
  for (const Case& c : {Case{1.0, 1, -1.0, -1.0, -1.0, -1.0, -1.0},
                        Case{1.5, 1, -1.2, 0, -1.2, 0, -1.28},
                        Case{0.5, 1, -0.5, -0.5, -0.5, -0.5, -0.5},
                        Case{1.5, -1, 1.5, 1.5, 1.5, 1.5, 1.5},
                        Case{0.5, -1, 0.8, 0, 0.8, 0, 0.8},
                        Case{4.0, -1, 4.0, 4.0, 3.0, 0, 4.0}}) {
    const TokenLoss loss = ClippedSurrogate(c.ratio, c.advantage, plain);
    EXPECT_NEAR(loss.loss, c.loss, 1e-15);
    EXPECT_NEAR(loss.gradient, c.gradient, 1e-15);
    EXPECT_EQ(loss.clipped, c.gradient == 0);
    EXPECT_FALSE(loss.dual_clipped);
    const TokenLoss capped = ClippedSurrogate(c.ratio, c.advantage, dual);
    EXPECT_NEAR(capped.loss, c.dual_loss, 1e-15);
    EXPECT_NEAR(capped.gradient, c.dual_gradient, 1e-15);
    EXPECT_EQ(capped.dual_clipped, c.dual_loss != c.loss);
    EXPECT_NEAR(ClippedSurrogate(c.ratio, c.advantage, high).loss,
                c.loss_high_28, 1e-15);
  }
  // The dual clip is for losers alone.
  SurrogateOptions wide = dual;
  wide.clip_high = 100;
  EXPECT_NEAR(ClippedSurrogate(4, 1, wide).gradient, -4, 1e-15);
  // On the boundary only the loss is defined.
  for (const SurrogateOptions& options : {plain, dual, high}) {
    EXPECT_NEAR(ClippedSurrogate(1.2, 2, options).loss, -2.4, 1e-15);
    EXPECT_NEAR(ClippedSurrogate(0.8, -2, options).loss, 1.6, 1e-15);
  }
}

TEST(Surrogate, ImportanceWeightsAreTruncated) {
  EXPECT_NEAR(ImportanceWeight(-1, -1.1, 2), 1.1051709181, 1e-10);
  EXPECT_EQ(ImportanceWeight(-1, -2, 2), 2);
  EXPECT_NEAR(ImportanceWeight(-1, -2, 100), 2.7182818285, 1e-10);
  EXPECT_NEAR(ImportanceWeight(-1, -0.7, 2), 0.7408182207, 1e-10);
}

TEST(AuxLoss, SdarsGatesLossesAndGradientsAreTheReferenceOnes) {
  struct Case {
    double beta, lambda;
    std::vector<double> gates;
    double loss;
    std::vector<double> gradients;  // first, middle, last of five
  };
  const std::vector<double> gaps = {-.5, -.1, 0, .1, .5};
  for (const Case& c :
       {Case{5,
             .01,
             {.07585818, .3775406688, .5, .6224593312, .92414182},
             0.000897267372,
             {-0.00015171636, -0.001, -0.00184828364}},
        Case{10,
             .1,
             {.0066928509, .2689414214, .5, .7310585786, .9933071491},
             0.010790377296,
             {-0.000133857018, -0.01, -0.019866142982}},
        Case{0, .01, {.5, .5, .5, .5, .5}, 0, {-.001, -.001, -.001}}}) {
    double loss = 0;
    std::vector<double> gradients;
    for (size_t t = 0; t < gaps.size(); ++t) {
      const TokenLoss term = SdarTerm(-1, -1 + gaps[t], c.beta);
      EXPECT_NEAR(-term.gradient, c.gates[t], 1e-8);
      loss += c.lambda * term.loss / 5;
      gradients.push_back(c.lambda * term.gradient / 5);
    }
    EXPECT_NEAR(loss, c.loss, 1e-11);
    EXPECT_NEAR(gradients[0], c.gradients[0], 1e-10);
    EXPECT_NEAR(gradients[2], c.gradients[1], 1e-10);
    EXPECT_NEAR(gradients[4], c.gradients[2], 1e-10);
  }
}

TEST(AuxLoss, WithoutBetaTheContextDoesNotMoveTheGradient) {
  Rng rng(11);
  for (int round = 0; round < 100; ++round) {
    EXPECT_EQ(SdarTerm(-rng.Uniform(), -9 * rng.Uniform(), 0).gradient, -0.5);
    const double current = -rng.Uniform();
    EXPECT_NE(SdarTerm(current, -9 * rng.Uniform(), 1).gradient,
              SdarTerm(current, -9 * rng.Uniform(), 1).gradient);
  }
}

// Softmax of .2 -.4 .9 against q.
TEST(AuxLoss, KlEstimatorsHaveTheReferenceMeansAndGradients) {
  const std::vector<double> logits = {.2, -.4, .9}, q = {.2, .5, .3};
  double z = 0;
  for (const double x : logits) z += std::exp(x);
  std::vector<double> p;
  for (const double x : logits) p.push_back(std::exp(x) / z);
  EXPECT_NEAR(p[0], 0.2806966846, 1e-10);
  double k1 = 0, k3 = 0, forward = 0;
  std::vector<double> by_k1(3), by_k2(3);  // E[gradient] by the logits
  for (int a = 0; a < 3; ++a) {
    const double lp = std::log(p[a]), lq = std::log(q[a]);
    k1 += p[a] * KlTerm(lp, lq, KlEstimator::kK1).loss;
    k3 += p[a] * KlTerm(lp, lq, KlEstimator::kK3).loss;
    forward += q[a] * (lq - lp);
    for (int j = 0; j < 3; ++j) {
      const double d = (a == j) - p[j];  // d log p_a / d logit_j
      by_k1[j] += p[a] * d * KlTerm(lp, lq, KlEstimator::kK1).gradient;
      by_k2[j] += p[a] * d * KlTerm(lp, lq, KlEstimator::kK2).gradient;
    }
  }
  EXPECT_NEAR(k1, 0.2718602547, 1e-10);
  EXPECT_NEAR(k3, 0.2718602547, 1e-10);
  EXPECT_NEAR(forward, 0.3308275927, 1e-10);
  const std::vector<double> kl_gradient = {0.0188339198, -0.2232477166,
                                           0.2044137969};
  for (int j = 0; j < 3; ++j) {
    EXPECT_NEAR(by_k1[j], 0, 1e-15);
    EXPECT_NEAR(by_k2[j], kl_gradient[j], 1e-10);
  }
}

TEST(AuxLoss, GradientsAreTheDerivativesOfTheLosses) {
  Rng rng(12);
  constexpr double kStep = 1e-6;
  for (int round = 0; round < 200; ++round) {
    const double lp = -2 * rng.Uniform(), ref = -2 * rng.Uniform();
    for (const KlEstimator how :
         {KlEstimator::kK1, KlEstimator::kK2, KlEstimator::kK3}) {
      const double slope = (KlTerm(lp + kStep, ref, how).loss -
                            KlTerm(lp - kStep, ref, how).loss) /
                           (2 * kStep);
      EXPECT_NEAR(KlTerm(lp, ref, how).gradient, slope, 1e-6);
      if (how != KlEstimator::kK1) {
        EXPECT_GE(KlTerm(lp, ref, how).loss, 0);
      }
    }
  }
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

constexpr Aggregation kAll[] = {
    Aggregation::kTrajectory, Aggregation::kToken, Aggregation::kTurn,
    Aggregation::kTrajectoryTurn, Aggregation::kMicroBatch};

TEST(TokenWeights, AggregationsAreTheReferenceMeans) {
  const StepBatch batch = TwoTrajectories();
  const double expected[] = {0.5, 0.0, 0.2666666667, 0.5555555556,
                             0.1666666667};
  for (int i = 0; i < 5; ++i) {
    EXPECT_NEAR(Aggregate(TokenLossWeights(batch, {0, 1}, {kAll[i], 2})),
                expected[i], 1e-10)
        << i;
  }
}

TEST(TokenWeights, OnlyMicroBatchesDependOnTheirSize) {
  const StepBatch batch = TwoTrajectories();
  for (const Aggregation how : kAll) {
    const auto two = TokenLossWeights(batch, {0, 1}, {how, 2});
    const auto three = TokenLossWeights(batch, {0, 1}, {how, 3});
    if (how == Aggregation::kMicroBatch) {
      EXPECT_NE(two, three);
    } else {
      EXPECT_EQ(two, three);
    }
  }
  // One micro-batch for all is the mean over all tokens.
  EXPECT_EQ(TokenLossWeights(batch, {0, 1}, {Aggregation::kMicroBatch, 100}),
            TokenLossWeights(batch, {0, 1}, {Aggregation::kToken}));
}

TEST(TokenWeights, WeightsOfAnUpdateAddUpToOneAndLeaveOthersOut) {
  Rng rng(3);
  const StepBatch batch = MakeBatch(RandomTrajectories(rng, 3, 4));
  for (const Aggregation how : kAll) {
    const auto weights = TokenLossWeights(batch, {1, 5, 6}, {how, 2});
    EXPECT_NEAR(std::accumulate(weights.begin(), weights.end(), 0.0), 1, 1e-12);
    for (int t = 0; t < batch.token_begin[batch.turn_begin[1]]; ++t)
      EXPECT_EQ(weights[t], 0);
  }
}

TEST(TokenWeights, ATrajectoryWithoutTokensDoesNotCount) {
  auto batch =
      MakeBatch({{.group = 0, .reward = 0, .turns = {TurnWith(.1, .1)}},
                 {.group = 0, .reward = 0, .turns = {TestTurn{}}}});
  for (const Aggregation how : kAll)
    EXPECT_THAT(TokenLossWeights(batch, {0, 1}, {how, 1}),
                ::testing::ElementsAre(1.0));
}

}  // namespace
}  // namespace atod::learner
