#include "services/learner/algorithm/update_loss.h"

#include <cmath>
#include <numeric>
#include <vector>

#include "services/learner/algorithm/advantages_for_test.h"
#include "services/learner/algorithm/batch_for_test.h"

namespace atod::learner {
namespace {

using ::testing::DoubleEq;
using ::testing::Each;
using ::testing::Pointwise;

// One update over columns of tokens. Those of one turn share its number.
struct Update {
  StepBatch batch;
  Advantages advantages;
  std::vector<double> weight, current, entropy;
  std::vector<int32_t> rows;

  Update(std::vector<double> now, std::vector<double> old,
         std::vector<double> advantage, std::vector<double> weights,
         const std::vector<int>& tokens_of_turns)
      : weight(std::move(weights)), current(std::move(now)) {
    batch.old_logprob = batch.rollout_logprob = std::move(old);
    advantages.advantage = std::move(advantage);
    for (const int n : tokens_of_turns) {
      batch.turn_index.push_back(batch.num_turns());
      batch.token_begin.push_back(batch.token_begin.back() + n);
    }
    rows.resize(current.size());
    std::iota(rows.begin(), rows.end(), 0);
  }
  // Every token is a turn.
  Update(std::vector<double> now, std::vector<double> old,
         std::vector<double> advantage, std::vector<double> weights)
      : Update(now, std::move(old), std::move(advantage), std::move(weights),
               std::vector<int>(now.size(), 1)) {}

  LossGradient Loss(const Recipe& recipe, LossStats* stats) const {
    return UpdateLoss(batch, advantages, recipe, weight,
                      {rows, current, entropy}, stats);
  }
  LossGradient Loss(const Recipe& recipe) const {
    LossStats stats;
    return Loss(recipe, &stats);
  }
};

// Every loss there is, over turns of several tokens.
Update RandomUpdate(uint64_t seed, int turns) {
  Rng rng(seed);
  std::vector<int> lengths;
  for (int k = 0; k < turns; ++k)
    lengths.push_back(static_cast<int>(rng.Below(5)));
  const int n = std::accumulate(lengths.begin(), lengths.end(), 0);
  std::vector<double> now, old, advantage, weight;
  for (int t = 0; t < n; ++t) {
    old.push_back(-2 * rng.Uniform());
    now.push_back(old.back() + .5 * rng.Normal());
    advantage.push_back(2 * rng.Normal());
    weight.push_back(rng.Uniform());
  }
  Update u(now, old, advantage, weight, lengths);
  for (int t = 0; t < n; ++t) {
    u.entropy.push_back(rng.Uniform());
    u.batch.reference_logprob.push_back(-2 * rng.Uniform());
    u.batch.context_logprob.push_back(-2 * rng.Uniform());
    u.batch.rollout_logprob[t] -= .5 * rng.Uniform();
  }
  return u;
}

Recipe AllLosses() {
  Recipe recipe;
  recipe.surrogate.clip_high = .28;
  recipe.surrogate.dual_clip = 1.5;
  recipe.surrogate.importance_cap = 1.2;
  recipe.aux.entropy_coef = .3;
  recipe.aux.kl_coef = .7;
  recipe.aux.sdar_lambda = .2;
  recipe.aux.sdar_beta = 4;
  return recipe;
}

TEST(UpdateLoss, LossAndGradientAreTheReferenceOnes) {
  struct Row {
    double ratio, advantage, loss, gradient;
  };
  for (const Row& row :
       {Row{1.0, 1, -1.0, -1.0}, Row{1.5, 1, -1.2, 0}, Row{0.5, 1, -0.5, -0.5},
        Row{1.5, -1, 1.5, 1.5}, Row{0.5, -1, 0.8, 0}, Row{4.0, -1, 4.0, 4.0}}) {
    LossStats stats;
    const LossGradient got =
        Update({std::log(row.ratio) - 1}, {-1}, {row.advantage}, {1})
            .Loss({}, &stats);
    EXPECT_NEAR(got.loss, row.loss, 1e-12);
    EXPECT_NEAR(got.logprob[0], row.gradient, 1e-12);
    EXPECT_EQ(stats.clipped, row.gradient == 0);
    EXPECT_THAT(got.entropy, testing::IsEmpty());
  }
}

TEST(UpdateLoss, IsTheWeightedSumOfTheTokensTerms) {
  const Update u = RandomUpdate(4, 100);
  const Recipe recipe = AllLosses();
  double loss = 0, clipped = 0;
  for (size_t t = 0; t < u.rows.size(); ++t) {
    const StepBatch& b = u.batch;
    const TokenLoss token =
        ClippedSurrogate(std::exp(u.current[t] - b.old_logprob[t]),
                         u.advantages.advantage[t], recipe.surrogate);
    loss += u.weight[t] *
            (token.loss *
                 ImportanceWeight(b.old_logprob[t], b.rollout_logprob[t], 1.2) +
             .7 * KlTerm(u.current[t], b.reference_logprob[t], KlEstimator::kK3)
                      .loss +
             .2 * SdarTerm(u.current[t], b.context_logprob[t], 4).loss -
             .3 * u.entropy[t]);
    clipped += token.clipped;
  }
  LossStats stats;
  EXPECT_NEAR(u.Loss(recipe, &stats).loss, loss, 1e-10);
  EXPECT_NEAR(stats.loss - .3 * stats.entropy + .7 * stats.reference_kl +
                  .2 * stats.sdar,
              loss, 1e-10);
  EXPECT_EQ(stats.clipped, clipped);
  EXPECT_GT(stats.dual_clipped, 0);
  EXPECT_LT(stats.dual_clipped, clipped);
}

// With all but the gate of SDAR, which is a constant of its gradient.
TEST(UpdateLoss, GradientsAreTheDerivativesOfTheLoss) {
  constexpr double kStep = 1e-6;
  for (const bool turn_ratio : {false, true}) {
    for (const KlEstimator estimator :
         {KlEstimator::kK1, KlEstimator::kK2, KlEstimator::kK3}) {
      Recipe recipe = AllLosses();
      recipe.surrogate.turn_ratio = turn_ratio;
      recipe.aux.kl_estimator = estimator;
      recipe.aux.sdar_lambda = 0;
      const Update u = RandomUpdate(6, 40);
      const LossGradient gradient = u.Loss(recipe);
      for (size_t t = 0; t < u.rows.size(); ++t) {
        const auto slope = [&](std::vector<double> Update::*column) {
          Update up = u, down = u;
          (up.*column)[t] += kStep;
          (down.*column)[t] -= kStep;
          return (up.Loss(recipe).loss - down.Loss(recipe).loss) / (2 * kStep);
        };
        EXPECT_NEAR(gradient.logprob[t], slope(&Update::current), 1e-6) << t;
        EXPECT_NEAR(gradient.entropy[t], slope(&Update::entropy), 1e-6) << t;
      }
    }
  }
}

TEST(UpdateLoss, ATurnsRatioSpreadsItsGradientOverTheTurn) {
  Recipe recipe;
  recipe.surrogate.turn_ratio = true;
  const Update u({-.9, -1.3, -.95, -.6, -.9}, {-1, -1, -1, -1, -1},
                 {1, 1, 1, 1, 1}, {.1, .2, .3, .4, 1}, {4, 0, 1});
  const LossGradient got = u.Loss(recipe);
  const double ratio = 1.0644944589, alone = std::exp(.1);
  EXPECT_NEAR(got.loss, -ratio - alone, 1e-9);
  for (int t = 0; t < 4; ++t) EXPECT_NEAR(got.logprob[t], -ratio / 4, 1e-9);
  const std::vector<TokenTerms> terms =
      LossTerms(u.batch, u.advantages, recipe, {u.rows, u.current, {}});
  for (int t = 0; t < 4; ++t) EXPECT_NEAR(terms[t].ratio, ratio, 1e-9);
  EXPECT_NEAR(terms[4].ratio, alone, 1e-15);
}

TEST(UpdateLoss, SdarWithoutBetaHasAGradientWithoutTheContext) {
  const auto gradient = [](double beta, std::vector<double> context) {
    Recipe recipe;
    recipe.aux.sdar_lambda = .01;
    recipe.aux.sdar_beta = beta;
    Update u({-1, -2, -.5}, {-1, -2, -.5}, {0, 0, 0}, {1, 1, 1});
    u.batch.context_logprob = std::move(context);
    return u.Loss(recipe).logprob;
  };
  EXPECT_EQ(gradient(0, {-3, -.1, -9}), gradient(0, {-1, -7, -2}));
  EXPECT_NE(gradient(5, {-3, -.1, -9}), gradient(5, {-1, -7, -2}));
}

TEST(UpdateLoss, MicroBatchesAddUpToTheWholeUpdate) {
  const Update u = RandomUpdate(5, 60);
  const Recipe recipe = AllLosses();
  LossStats whole, sum;
  const LossGradient all = u.Loss(recipe, &whole);
  std::vector<double> gradient;
  for (int k = 0; k < u.batch.num_turns(); k += 7) {
    const int last = std::min(k + 7, u.batch.num_turns());
    const size_t begin = u.batch.token_begin[k];
    const size_t n = u.batch.token_begin[last] - begin;
    LossStats part;
    const LossGradient got =
        UpdateLoss(u.batch, u.advantages, recipe, u.weight,
                   {absl::MakeSpan(u.rows).subspan(begin, n),
                    absl::MakeSpan(u.current).subspan(begin, n),
                    absl::MakeSpan(u.entropy).subspan(begin, n)},
                   &part);
    sum.Add(part);
    gradient.insert(gradient.end(), got.logprob.begin(), got.logprob.end());
  }
  EXPECT_EQ(gradient, all.logprob);
  EXPECT_NEAR(sum.loss, whole.loss, 1e-12);
  EXPECT_EQ(sum.tokens, whole.tokens);
  EXPECT_EQ(sum.clipped, whole.clipped);
  EXPECT_EQ(sum.ratio_max, whole.ratio_max);
}

TEST(UpdateLoss, EqualSidesOfTheClipKeepTheWholeGradient) {
  EXPECT_EQ(Update({-1, -2}, {-1, -2}, {3, -5}, {1, 1}).Loss({}).logprob,
            (std::vector<double>{-3, 5}));
}

// delta_student current: what trains is what the step's advantages become with
// the new log-probs.
TEST(UpdateLoss, ACurrentDeltaFollowsTheModelUnderUpdate) {
  Recipe recipe;
  recipe.signal.current = true;
  Update u({-1, -2}, {-1, -2}, {7, 7}, {1, 1});
  u.batch.teacher_logprob = {-.5, -3};
  u.advantages.kl_coef = .5;
  u.advantages.rl_coef = 2;
  u.advantages.w = {1, .25};
  u.advantages.group_advantage = {1, -1};
  EXPECT_THAT(u.Loss(recipe).logprob,
              Near({-(.5 * .5 + 2), -(.5 * .25 * -1 - 2)}));
  recipe.signal.current = false;
  EXPECT_THAT(u.Loss(recipe).logprob, Each(-7));
}

TEST(UpdateLoss, StatisticsDescribeTheRatios) {
  LossStats stats;
  Update({std::log(1.5), std::log(0.9)}, {0, 0}, {1, 1}, {.5, .5})
      .Loss({}, &stats);
  std::map<std::string, double> metrics;
  stats.PutMetrics(1, {}, metrics);
  EXPECT_EQ(metrics["actor/pg_clipfrac"], .5);
  EXPECT_NEAR(metrics["actor/ratio_mean"], 1.2, 1e-12);
  EXPECT_NEAR(metrics["actor/ratio_max"], 1.5, 1e-12);
  EXPECT_NEAR(metrics["actor/ppo_kl"],
              (1.5 - 1 - std::log(1.5) + .9 - 1 - std::log(.9)) / 2, 1e-12);
  EXPECT_NEAR(metrics["actor/pg_loss"], -(1.2 + .9) / 2, 1e-12);
}

TEST(UpdateLoss, NoTokensAreNoLoss) {
  LossStats stats;
  EXPECT_EQ(Update({}, {}, {}, {}).Loss({}, &stats).loss, 0);
  std::map<std::string, double> metrics;
  stats.PutMetrics(1, {}, metrics);
  EXPECT_TRUE(metrics.empty());
}

// --- From logits to the gradient: distillation against a teacher. ---

constexpr int kVocab = 3;
const std::vector<double> kLogits = {.2, -.4, .9}, kTeacherProbs = {.2, .5, .3};
const std::vector<double> kKlGradient = {0.0188339198, -0.2232477166,
                                         0.2044137969};

std::vector<double> Softmax(const std::vector<double>& logits) {
  double z = 0;
  for (const double x : logits) z += std::exp(x);
  std::vector<double> p;
  for (const double x : logits) p.push_back(std::exp(x) / z);
  return p;
}

std::vector<double> Log(std::vector<double> x) {
  for (double& v : x) v = std::log(v);
  return x;
}

// By the logits, given that by the log-probs of the tokens `ids`.
std::vector<double> ByLogits(const std::vector<double>& by_logprob,
                             const std::vector<int>& ids) {
  const std::vector<double> p = Softmax(kLogits);
  std::vector<double> out(kVocab);
  for (size_t t = 0; t < ids.size(); ++t)
    for (int j = 0; j < kVocab; ++j)
      out[j] += by_logprob[t] * ((ids[t] == j) - p[j]);
  return out;
}

// Gradient of the surrogate by the logits, through the learner's own
// advantages (recipe opd), of one-token trajectories that weigh `weight`.
std::vector<double> OpdGradient(const std::vector<int>& ids,
                                const std::vector<double>& teacher,
                                const std::vector<double>& weight) {
  const std::vector<double> old = Log(Softmax(kLogits));
  std::vector<TestTrajectory> all;
  for (const int a : ids) {
    all.push_back(
        {.turns = {{.student = {old[a]}, .teacher = {std::log(teacher[a])}}}});
  }
  const StepBatch batch = MakeBatch(all);
  Settings options;
  options["recipe"] = "opd";
  std::vector<int32_t> rows(ids.size());
  std::iota(rows.begin(), rows.end(), 0);
  LossStats stats;
  return ByLogits(UpdateLoss(batch, Compute(batch, options), Recipe(), weight,
                             {rows, batch.old_logprob, {}}, &stats)
                      .logprob,
                  ids);
}

TEST(Distillation, ExpectedGradientIsThatOfReverseKl) {
  EXPECT_THAT(OpdGradient({0, 1, 2}, kTeacherProbs, Softmax(kLogits)),
              Near(kKlGradient, 1e-9));
}

TEST(Distillation, AnotherTeacherChangesTheGradient) {
  const auto one = OpdGradient({0, 1, 2}, kTeacherProbs, Softmax(kLogits));
  const auto other = OpdGradient({0, 1, 2}, {.5, .2, .3}, Softmax(kLogits));
  double distance = 0;
  for (int a = 0; a < kVocab; ++a) distance += std::abs(one[a] - other[a]);
  EXPECT_GT(distance, 0.1);
}

TEST(Distillation, ATeacherLikeTheStudentGivesNoGradient) {
  EXPECT_THAT(OpdGradient({0, 1, 2}, Softmax(kLogits), Softmax(kLogits)),
              Near({0, 0, 0}, 1e-15));
}

// The same from samples instead of the exact sum: what training sees.
TEST(Distillation, SampledGradientsAverageToMinusThatOfReverseKl) {
  const std::vector<double> p = Softmax(kLogits);
  Rng rng(9);
  constexpr int kSamples = 100000;
  std::vector<int> ids;
  std::vector<double> square(kVocab);
  for (int n = 0; n < kSamples; ++n) {
    const double u = rng.Uniform();
    const int a = u < p[0] ? 0 : u < p[0] + p[1] ? 1 : 2;
    ids.push_back(a);
    for (int j = 0; j < kVocab; ++j) {
      const double term =
          (std::log(kTeacherProbs[a]) - std::log(p[a])) * ((a == j) - p[j]);
      square[j] += term * term / kSamples;
    }
  }
  const std::vector<double> mean(kSamples, 1.0 / kSamples);
  const std::vector<double> descent = OpdGradient(ids, kTeacherProbs, mean);
  // Descending the loss descends the KL.
  for (int j = 0; j < kVocab; ++j) {
    const double error =
        std::sqrt((square[j] - kKlGradient[j] * kKlGradient[j]) / kSamples);
    EXPECT_NEAR(descent[j], kKlGradient[j], 5 * error);
  }
  // Delta itself differentiated, without a ratio, trains nothing.
  for (const double x : ByLogits(mean, ids))
    EXPECT_NEAR(x, 0, 5 * std::sqrt(.25 / kSamples));
}

// SDAR with the teacher's log-probs in the place of the context's pushes in
// another direction than the KL's gradient.
TEST(Distillation, GatedSelfDistillationIsNoKlGradient) {
  const std::vector<double> p = Softmax(kLogits);
  Recipe recipe;
  recipe.aux.sdar_lambda = 1;
  recipe.aux.sdar_beta = 5;
  Update u(Log(p), Log(p), {0, 0, 0}, p);
  u.batch.context_logprob = Log(kTeacherProbs);
  std::vector<double> ascent = ByLogits(u.Loss(recipe).logprob, {0, 1, 2});
  for (double& x : ascent) x = -x;
  EXPECT_THAT(ascent, Near({-0.0182077478, 0.1197300960, -0.1015223482}, 1e-9));
}

}  // namespace
}  // namespace atod::learner
