#include "services/learner/surrogate_trainer.h"

#include <cmath>
#include <vector>

#include "ATen/ATen.h"
#include "common/base/rng.h"
#include "common/device/cpu_device.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/algorithm/advantages.h"
#include "services/learner/algorithm/batch_for_test.h"
#include "services/learner/algorithm/surrogate.h"

namespace atod::learner {
namespace {

at::Tensor Column(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble);
}

at::Tensor Leaf(const std::vector<double>& values) {
  at::Tensor x = Column(values);
  x.requires_grad_();
  return x;
}

std::vector<double> Values(const at::Tensor& x) {
  const at::Tensor flat = x.detach().to(at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(),
          flat.const_data_ptr<double>() + flat.numel()};
}

struct Case {
  double loss = 0;
  std::vector<double> gradient;  // by current
  SurrogateStats stats;
};

Case Evaluate(const std::vector<double>& current,
              const std::vector<double>& old,
              const std::vector<double>& advantage,
              const std::vector<double>& weight) {
  const at::Tensor leaf = Leaf(current);
  Case result;
  const at::Tensor loss = SurrogateLoss(leaf, Column(old), Column(advantage),
                                        Column(weight), .2, .2, &result.stats);
  loss.backward();
  result.loss = loss.item<double>();
  result.gradient = Values(leaf.grad());
  return result;
}

TEST(SurrogateLoss, LossAndGradientAreTheReferenceOnes) {
  struct Row {
    double ratio, advantage, loss, gradient;
  };
  for (const Row& row :
       {Row{1.0, 1, -1.0, -1.0}, Row{1.5, 1, -1.2, 0}, Row{0.5, 1, -0.5, -0.5},
        Row{1.5, -1, 1.5, 1.5}, Row{0.5, -1, 0.8, 0}, Row{4.0, -1, 4.0, 4.0}}) {
    const Case c =
        Evaluate({std::log(row.ratio) - 1}, {-1}, {row.advantage}, {1});
    EXPECT_NEAR(c.loss, row.loss, 1e-12);
    EXPECT_NEAR(c.gradient[0], row.gradient, 1e-12);
    EXPECT_EQ(c.stats.clipped, row.gradient == 0);
  }
}

TEST(SurrogateLoss, AgreesWithThePlainFunctionOnRandomTokens) {
  Rng rng(4);
  std::vector<double> current, old, advantage, weight;
  double loss = 0;
  std::vector<double> gradient;
  for (int t = 0; t < 500; ++t) {
    old.push_back(-2 * rng.Uniform());
    current.push_back(old.back() + .5 * rng.Normal());
    advantage.push_back(2 * rng.Normal());
    weight.push_back(rng.Uniform());
    const TokenLoss token = ClippedSurrogate(
        std::exp(current.back() - old.back()), advantage.back(), .2, .2);
    loss += weight.back() * token.loss;
    gradient.push_back(weight.back() * token.gradient);
  }
  const Case c = Evaluate(current, old, advantage, weight);
  EXPECT_NEAR(c.loss, loss, 1e-10);
  EXPECT_THAT(c.gradient,
              ::testing::Pointwise(::testing::DoubleNear(1e-12), gradient));
  EXPECT_NEAR(c.stats.loss, loss, 1e-10);
}

TEST(SurrogateLoss, MicroBatchesAddUpToTheWholeUpdate) {
  Rng rng(5);
  const StepBatch batch = MakeBatch(RandomTrajectories(rng, 2, 4));
  const int n = batch.num_tokens();
  for (const Aggregation how :
       {Aggregation::kTrajectory, Aggregation::kToken}) {
    const auto weight = TokenLossWeights(batch, {0, 1, 2, 3, 4, 5, 6, 7}, how);
    std::vector<double> advantage(n);
    for (double& a : advantage) a = rng.Normal();
    const Case whole =
        Evaluate(batch.teacher_logprob, batch.old_logprob, advantage, weight);
    SurrogateStats sum;
    std::vector<double> gradient;
    for (int begin = 0; begin < n; begin += 7) {
      const int end = std::min(begin + 7, n);
      const auto part = [&](const std::vector<double>& v) {
        return std::vector<double>(v.begin() + begin, v.begin() + end);
      };
      const Case c =
          Evaluate(part(batch.teacher_logprob), part(batch.old_logprob),
                   part(advantage), part(weight));
      sum.Add(c.stats);
      gradient.insert(gradient.end(), c.gradient.begin(), c.gradient.end());
    }
    EXPECT_NEAR(sum.loss, whole.loss, 1e-12);
    EXPECT_EQ(gradient, whole.gradient);
    EXPECT_EQ(sum.tokens, whole.stats.tokens);
    EXPECT_EQ(sum.clipped, whole.stats.clipped);
    EXPECT_EQ(sum.ratio_max, whole.stats.ratio_max);
  }
}

// On the first update `old` is the same numbers as `current`; if the graph of
// either side leaked in, the ratio would have no gradient at all.
TEST(SurrogateLoss, OldLogProbsAreConstantEvenWhenTheyAreTheSameTensor) {
  const at::Tensor current = Leaf({-1, -2});
  SurrogateStats stats;
  SurrogateLoss(current, current, Column({3, -5}), Column({1, 1}), .2, .2,
                &stats)
      .backward();
  EXPECT_EQ(Values(current.grad()), (std::vector<double>{-3, 5}));
}

TEST(SurrogateLoss, AdvantagesAndWeightsAreConstant) {
  const at::Tensor current = Leaf({-1, -2});
  const at::Tensor advantage = Column({-.5, -.5}) - current;  // .5 and 1.5
  const at::Tensor weight = current * -1;                     // 1 and 2
  SurrogateStats stats;
  SurrogateLoss(current, Column({-1, -2}), advantage, weight, .2, .2, &stats)
      .backward();
  EXPECT_EQ(Values(current.grad()), (std::vector<double>{-.5, -3}));
}

TEST(SurrogateLoss, StatisticsDescribeTheRatios) {
  const Case c =
      Evaluate({std::log(1.5), std::log(0.9)}, {0, 0}, {1, 1}, {.5, .5});
  std::map<std::string, double> metrics;
  c.stats.PutMetrics(metrics);
  EXPECT_EQ(metrics["actor/pg_clipfrac"], .5);
  EXPECT_NEAR(metrics["actor/ratio_mean"], 1.2, 1e-12);
  EXPECT_NEAR(metrics["actor/ratio_max"], 1.5, 1e-12);
  EXPECT_NEAR(metrics["actor/ppo_kl"],
              (1.5 - 1 - std::log(1.5) + .9 - 1 - std::log(.9)) / 2, 1e-12);
  EXPECT_NEAR(metrics["actor/pg_loss"], -(1.2 + .9) / 2, 1e-12);
}

TEST(SurrogateLoss, NoTokensAreNoLoss) {
  const Case c = Evaluate({}, {}, {}, {});
  EXPECT_EQ(c.loss, 0);
  std::map<std::string, double> metrics;
  c.stats.PutMetrics(metrics);
  EXPECT_TRUE(metrics.empty());
}

// --- From logits to the gradient: distillation against a teacher. ---

constexpr int kVocab = 3;

// Gradient by the logits of the expected surrogate over all tokens of a small
// vocabulary, through the learner's own advantages (recipe opd): the sum over
// tokens a of pi(a) times the loss of a one-token trajectory a.
std::vector<double> ExpectedGradient(const std::vector<double>& logits,
                                     const std::vector<double>& teacher) {
  const at::Tensor leaf = Leaf(logits);
  const at::Tensor logprobs = leaf.log_softmax(0);
  const std::vector<double> old = Values(logprobs);
  std::vector<TestTrajectory> all;
  for (int a = 0; a < kVocab; ++a) {
    all.push_back(
        {.group = 0,
         .reward = 0,
         .turns = {{.student = {old[a]}, .teacher = {std::log(teacher[a])}}}});
  }
  AlgorithmOptions options;
  options.recipe = "opd";
  const auto advantages =
      ComputeAdvantages(MakeBatch(all), options, 1, *MakeCpuDevice());
  EXPECT_TRUE(advantages.ok()) << advantages.status();
  SurrogateStats stats;
  SurrogateLoss(logprobs, Column(old), Column(advantages->advantage),
                logprobs.exp(), .2, .2, &stats)
      .backward();
  return Values(leaf.grad());
}

TEST(Distillation, ExpectedGradientIsThatOfReverseKl) {
  EXPECT_THAT(
      ExpectedGradient({.2, -.4, .9}, {.2, .5, .3}),
      ::testing::Pointwise(::testing::DoubleNear(1e-9),
                           {0.0188339198, -0.2232477166, 0.2044137969}));
}

TEST(Distillation, AnotherTeacherChangesTheGradient) {
  const auto one = ExpectedGradient({.2, -.4, .9}, {.2, .5, .3});
  const auto other = ExpectedGradient({.2, -.4, .9}, {.5, .2, .3});
  double distance = 0;
  for (int a = 0; a < kVocab; ++a) distance += std::abs(one[a] - other[a]);
  EXPECT_GT(distance, 0.1);
}

TEST(Distillation, ATeacherLikeTheStudentGivesNoGradient) {
  const std::vector<double> logits = {.2, -.4, .9};
  const auto same = Values(Column(logits).softmax(0));
  for (double g : ExpectedGradient(logits, same)) EXPECT_NEAR(g, 0, 1e-15);
}

}  // namespace
}  // namespace atod::learner
