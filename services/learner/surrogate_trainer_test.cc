#include "services/learner/surrogate_trainer.h"

#include <cmath>
#include <numeric>
#include <vector>

#include "ATen/ATen.h"
#include "common/base/rng.h"
#include "common/device/cpu_device.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/algorithm/advantages.h"
#include "services/learner/algorithm/batch_for_test.h"
#include "services/learner/algorithm/surrogate.h"
#include "services/learner/algorithm/token_weights.h"

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
              const std::vector<double>& weight,
              const SurrogateOptions& options = {},
              const std::vector<int64_t>& turn = {}) {
  const at::Tensor leaf = Leaf(current);
  Case result;
  const at::Tensor loss =
      SurrogateLoss(leaf, Column(old), Column(advantage), Column(weight),
                    at::tensor(turn, at::kLong), options, &result.stats);
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
  for (const double dual_clip : {0., 1.5}) {
    SurrogateOptions options;
    options.clip_high = .28;
    options.dual_clip = dual_clip;
    std::vector<double> current, old, advantage, weight, gradient;
    double loss = 0, clipped = 0;
    for (int t = 0; t < 500; ++t) {
      old.push_back(-2 * rng.Uniform());
      current.push_back(old.back() + .5 * rng.Normal());
      advantage.push_back(2 * rng.Normal());
      weight.push_back(rng.Uniform());
      const TokenLoss token = ClippedSurrogate(
          std::exp(current.back() - old.back()), advantage.back(), options);
      loss += weight.back() * token.loss;
      gradient.push_back(weight.back() * token.gradient);
      clipped += token.clipped;
    }
    const Case c = Evaluate(current, old, advantage, weight, options);
    EXPECT_NEAR(c.loss, loss, 1e-10);
    EXPECT_THAT(c.gradient,
                ::testing::Pointwise(::testing::DoubleNear(1e-12), gradient));
    EXPECT_NEAR(c.stats.loss, loss, 1e-10);
    EXPECT_EQ(c.stats.clipped, clipped);
    EXPECT_EQ(c.stats.dual_clipped > 0, dual_clip > 0);
  }
}

TEST(SurrogateLoss, ATurnsRatioSpreadsItsGradientOverTheTurn) {
  SurrogateOptions options;
  options.turn_ratio = true;
  const Case c =
      Evaluate({-.9, -1.3, -.95, -.6, -.9}, {-1, -1, -1, -1, -1},
               {1, 1, 1, 1, 1}, {.1, .2, .3, .4, 1}, options, {0, 0, 0, 0, 1});
  const double ratio = 1.0644944589, alone = std::exp(.1);
  EXPECT_NEAR(c.loss, -ratio - alone, 1e-9);
  for (int t = 0; t < 4; ++t) EXPECT_NEAR(c.gradient[t], -ratio / 4, 1e-9);
}

TEST(AuxLoss, AgreesWithThePlainFunctionsOnRandomTokens) {
  Rng rng(6);
  for (const KlEstimator estimator :
       {KlEstimator::kK1, KlEstimator::kK2, KlEstimator::kK3}) {
    AuxOptions options;
    options.entropy_coef = .3;
    options.kl_coef = .7;
    options.kl_estimator = estimator;
    options.sdar_lambda = .2;
    options.sdar_beta = 4;
    std::vector<double> current, entropy, reference, context, weight, gradient;
    double loss = 0;
    for (int t = 0; t < 300; ++t) {
      for (auto* column : {&current, &reference, &context})
        column->push_back(-2 * rng.Uniform());
      entropy.push_back(rng.Uniform());
      weight.push_back(rng.Uniform());
      const TokenLoss kl = KlTerm(current[t], reference[t], estimator);
      const TokenLoss sdar = SdarTerm(current[t], context[t], 4);
      loss += weight[t] * (-.3 * entropy[t] + .7 * kl.loss + .2 * sdar.loss);
      gradient.push_back(weight[t] * (.7 * kl.gradient + .2 * sdar.gradient));
    }
    const at::Tensor by_current = Leaf(current), by_entropy = Leaf(entropy);
    SurrogateStats stats;
    const at::Tensor total =
        AuxLoss(by_current, by_entropy, Column(reference), Column(context),
                Column(weight), options, &stats);
    total.backward();
    EXPECT_NEAR(total.item<double>(), loss, 1e-10);
    EXPECT_THAT(Values(by_current.grad()),
                ::testing::Pointwise(::testing::DoubleNear(1e-12), gradient));
    EXPECT_NEAR(Values(by_entropy.grad())[7], -.3 * weight[7], 1e-12);
    EXPECT_NEAR(-.3 * stats.entropy + .7 * stats.reference_kl + .2 * stats.sdar,
                loss, 1e-10);
  }
}

TEST(AuxLoss, SdarWithoutBetaHasAGradientWithoutTheContext) {
  AuxOptions options;
  options.sdar_lambda = .01;
  const auto gradient = [&](double beta, const std::vector<double>& context) {
    options.sdar_beta = beta;
    const at::Tensor current = Leaf({-1, -2, -.5});
    SurrogateStats stats;
    AuxLoss(current, {}, {}, Column(context), Column({1, 1, 1}), options,
            &stats)
        .backward();
    return Values(current.grad());
  };
  EXPECT_EQ(gradient(0, {-3, -.1, -9}), gradient(0, {-1, -7, -2}));
  EXPECT_NE(gradient(5, {-3, -.1, -9}), gradient(5, {-1, -7, -2}));
}

TEST(SurrogateLoss, MicroBatchesAddUpToTheWholeUpdate) {
  Rng rng(5);
  const StepBatch batch = MakeBatch(RandomTrajectories(rng, 2, 4));
  const int n = batch.num_tokens();
  for (const Aggregation how :
       {Aggregation::kTrajectory, Aggregation::kToken}) {
    const auto weight =
        TokenLossWeights(batch, {0, 1, 2, 3, 4, 5, 6, 7}, {how});
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
  SurrogateLoss(current, current, Column({3, -5}), Column({1, 1}), {}, {},
                &stats)
      .backward();
  EXPECT_EQ(Values(current.grad()), (std::vector<double>{-3, 5}));
}

TEST(SurrogateLoss, AdvantagesAndWeightsAreConstant) {
  const at::Tensor current = Leaf({-1, -2});
  const at::Tensor advantage = Column({-.5, -.5}) - current;  // .5 and 1.5
  const at::Tensor weight = current * -1;                     // 1 and 2
  SurrogateStats stats;
  SurrogateLoss(current, Column({-1, -2}), advantage, weight, {}, {}, &stats)
      .backward();
  EXPECT_EQ(Values(current.grad()), (std::vector<double>{-.5, -3}));
}

TEST(SurrogateLoss, StatisticsDescribeTheRatios) {
  const Case c =
      Evaluate({std::log(1.5), std::log(0.9)}, {0, 0}, {1, 1}, {.5, .5});
  std::map<std::string, double> metrics;
  c.stats.PutMetrics(1, {}, metrics);
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
  c.stats.PutMetrics(1, {}, metrics);
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
                logprobs.exp(), {}, {}, &stats)
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

// The same from samples instead of the exact sum: what training sees.
TEST(Distillation, SampledGradientsAverageToMinusThatOfReverseKl) {
  const std::vector<double> logits = {.2, -.4, .9}, teacher = {.2, .5, .3};
  const std::vector<double> p = Values(Column(logits).softmax(0));
  Rng rng(9);
  constexpr int kSamples = 100000;
  std::vector<TestTrajectory> played;
  std::vector<int64_t> tokens;
  std::vector<double> square(kVocab);
  for (int n = 0; n < kSamples; ++n) {
    const double u = rng.Uniform();
    const int a = u < p[0] ? 0 : u < p[0] + p[1] ? 1 : 2;
    tokens.push_back(a);
    played.push_back({.turns = {{.student = {std::log(p[a])},
                                 .teacher = {std::log(teacher[a])}}}});
    for (int j = 0; j < kVocab; ++j) {
      const double term =
          (std::log(teacher[a]) - std::log(p[a])) * ((a == j) - p[j]);
      square[j] += term * term / kSamples;
    }
  }
  const StepBatch batch = MakeBatch(played);
  AlgorithmOptions options;
  options.recipe = "opd";
  const auto advantages =
      ComputeAdvantages(batch, options, 1, *MakeCpuDevice());
  ASSERT_TRUE(advantages.ok()) << advantages.status();
  std::vector<int32_t> update(kSamples);
  std::iota(update.begin(), update.end(), 0);
  const at::Tensor leaf = Leaf(logits);
  SurrogateStats stats;
  SurrogateLoss(leaf.log_softmax(0).index({at::tensor(tokens, at::kLong)}),
                Column(batch.old_logprob), Column(advantages->advantage),
                Column(TokenLossWeights(batch, update, {})),
                at::tensor(std::vector<int64_t>(), at::kLong), {}, &stats)
      .backward();
  const std::vector<double> descent = Values(leaf.grad());
  const std::vector<double> kl_gradient = {0.0188339198, -0.2232477166,
                                           0.2044137969};
  // Descending the loss descends the KL.
  for (int j = 0; j < kVocab; ++j) {
    const double error =
        std::sqrt((square[j] - kl_gradient[j] * kl_gradient[j]) / kSamples);
    EXPECT_NEAR(descent[j], kl_gradient[j], 5 * error);
  }
  // Delta itself differentiated, without a ratio, trains nothing.
  const at::Tensor plain = Leaf(logits);
  plain.log_softmax(0).index({at::tensor(tokens, at::kLong)}).mean().backward();
  for (const double x : Values(plain.grad()))
    EXPECT_NEAR(x, 0, 5 * std::sqrt(.25 / kSamples));
}

// SDAR with the teacher's log-probs in the place of the context's pushes in
// another direction than the KL's gradient.
TEST(Distillation, GatedSelfDistillationIsNoKlGradient) {
  const at::Tensor logits = Leaf({.2, -.4, .9});
  const at::Tensor logprobs = logits.log_softmax(0);
  AuxOptions options;
  options.sdar_lambda = 1;
  options.sdar_beta = 5;
  SurrogateStats stats;
  AuxLoss(logprobs, {}, {}, Column({.2, .5, .3}).log(), logprobs.exp(), options,
          &stats)
      .backward();
  std::vector<double> ascent = Values(logits.grad());
  for (double& x : ascent) x = -x;
  EXPECT_THAT(ascent, ::testing::Pointwise(
                          ::testing::DoubleNear(1e-9),
                          {-0.0182077478, 0.1197300960, -0.1015223482}));
}

}  // namespace
}  // namespace atod::learner
