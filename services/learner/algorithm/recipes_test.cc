// Recipes and the switches of the profiles: reference values, and what must
// hold on random batches.
#include <cmath>
#include <numeric>

#include "common/device/cpu_device.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/algorithm/advantages.h"
#include "services/learner/algorithm/advantages_for_test.h"
#include "services/learner/algorithm/batch_for_test.h"
#include "services/learner/algorithm/duplicate_rows.h"
#include "services/learner/algorithm/rollout_policy.h"

namespace atod::learner {
namespace {

using ::testing::HasSubstr;

const char* const kRecipes[] = {"atod",         "opd",
                                "grpo",         "sod",
                                "tcod",         "sdar",
                                "atod_token",   "atod_token_fair",
                                "atod_one",     "atod_one_matched",
                                "atod_constant"};
const char* const kProfilesOfRecipes[] = {"paper", "default", "released"};

Settings SettingsOf(const std::string& recipe,
                    const std::string& profile = "paper") {
  Settings options;
  options["recipe"] = recipe;
  options["profile"] = profile;
  options["kl_coef_constant"] = 1;
  options["rl_coef_constant"] = .3;
  return options;
}

std::string Refusal(const Settings& options) {
  const auto recipe = TryRecipe(options);
  return recipe.ok() ? "OK" : std::string(recipe.status().message());
}

std::vector<double> WeightsOf(const TestTrajectory& trajectory,
                              const Settings& options, int step = 40) {
  return Compute(MakeBatch({trajectory}), options, step).w;
}

// --- Recipes. ---

TEST(Recipes, SodWeighsByTheFirstTurnsDivergence) {
  const TestTrajectory five =
      Turns({{.2, .1}, {.4, .1}, {.1, .1}, {.18, .1}, {.8, .1}});
  EXPECT_THAT(WeightsOf(five, SettingsOf("sod")),
              Near({1, 0.50000125, 1.2, 1.1111104938, 0.2500009375}, 1e-10));
  Settings wide = SettingsOf("sod");
  wide["sod_delta"] = .5;
  EXPECT_THAT(WeightsOf(five, wide),
              Near({1, 0.50000125, 1.5, 1.1111104938, 0.2500009375}, 1e-10));
  EXPECT_THAT(WeightsOf(Turns({{0, .1}, {.3, .1}}), SettingsOf("sod")),
              Near({1, 3.3333e-06}, 1e-10));
  Settings uniform = SettingsOf("sod");
  uniform["sod_mode"] = "uniform";
  EXPECT_THAT(WeightsOf(five, uniform), Near({1, 1, 1, 1, 1}));
}

TEST(Recipes, SodsRunningProductIsItsTelescopedForm) {
  Rng rng(21);
  for (int round = 0; round < 30; ++round) {
    const StepBatch batch = MakeBatch(RandomTrajectories(rng, 2, 4));
    const Advantages a = Compute(batch, SettingsOf("sod"));
    for (int i = 0; i < batch.num_trajectories(); ++i) {
      double product = 1, before = -1;
      for (int k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k) {
        if (batch.token_begin[k] == batch.token_begin[k + 1]) continue;
        if (before >= 0) product *= (before + 1e-6) / (a.d[k] + 1e-6);
        before = a.d[k];
        EXPECT_NEAR(a.w[k], std::min(product, 1.2), 1e-9);
      }
    }
  }
}

TEST(Recipes, SodKeepsTheRewardAndGatesOnlyWithItsConstants) {
  auto group = MixedGroup();
  const Advantages a = Compute(MakeBatch(group), SettingsOf("sod"));
  EXPECT_EQ(a.kl_coef, 1);
  EXPECT_EQ(a.rl_coef, 1);
  Settings gated = SettingsOf("sod");
  gated["sod_mode"] = "gated";
  EXPECT_THAT(Refusal(gated),
              HasSubstr("algorithm.sod_gate_min: found nothing"));
  gated["sod_gate_min"] = .2;
  gated["sod_gate_max"] = 1;
  gated["sod_gate_slope"] = 2;
  const Advantages g = Compute(MakeBatch(group), gated);
  EXPECT_NEAR(g.w[0], .2 + .8 / (1 + std::exp(2 * g.grpo[0])), 1e-12);
  EXPECT_LT(g.w[0], g.w[5]);  // a success needs the teacher less
}

TEST(Recipes, TcodIsOpdOverFewerTurns) {
  Rng rng(22);
  const StepBatch batch = MakeBatch(RandomTrajectories(rng, 2, 4));
  EXPECT_EQ(Compute(batch, SettingsOf("tcod")).advantage,
            Compute(batch, SettingsOf("opd")).advantage);
  struct Case {
    uint32_t eta, most, n, turns;
  };
  for (const Case& c :
       {Case{2, 30, 1, 1}, Case{2, 30, 2, 2}, Case{2, 30, 3, 2},
        Case{2, 30, 4, 3}, Case{2, 30, 57, 29}, Case{2, 30, 58, 30},
        Case{2, 30, 60, 30}, Case{2, 30, 250, 30}, Case{3, 50, 1, 1},
        Case{3, 50, 2, 1}, Case{3, 50, 3, 2}, Case{3, 50, 30, 11},
        Case{3, 50, 146, 49}, Case{3, 50, 147, 50}, Case{3, 50, 150, 50}}) {
    const RolloutPolicy policy{RolloutPolicy::Mode::kFrontToBack, c.eta};
    EXPECT_EQ(policy.TurnLimit(c.n, c.most), c.turns) << c.n;
    EXPECT_EQ(policy.PrefixLength(c.n, 8), 0u);
  }
  const RolloutPolicy back{RolloutPolicy::Mode::kBackToFront, 5};
  const std::pair<uint32_t, uint32_t> prefixes[] = {
      {0, 7}, {4, 7}, {5, 6}, {10, 5}, {34, 1}, {35, 0}, {250, 0}};
  for (const auto& [n, prefix] : prefixes) {
    EXPECT_EQ(back.PrefixLength(n, 8), prefix) << n;
    EXPECT_EQ(back.TurnLimit(n, 50), 50u);
  }
  EXPECT_EQ(back.PrefixLength(0, 0), 0u);
  EXPECT_EQ(RolloutPolicy().TurnLimit(1, 50), 50u);
}

TEST(Recipes, SdarIsGrpoInItsAdvantages) {
  Rng rng(23);
  const StepBatch batch = MakeBatch(RandomTrajectories(rng, 2, 4));
  EXPECT_EQ(Compute(batch, SettingsOf("sdar")).advantage,
            Compute(batch, SettingsOf("grpo")).advantage);
  const auto recipe = TryRecipe(SettingsOf("sdar"));
  ASSERT_TRUE(recipe.ok());
  EXPECT_TRUE(recipe->needs_context);
  EXPECT_FALSE(recipe->needs_teacher);
  EXPECT_EQ(recipe->aux.sdar_lambda, .01);
  EXPECT_EQ(recipe->aux.sdar_beta, 5);
}

TEST(Recipes, WithoutAnnealingTheConstantsMustBeGiven) {
  Settings options;
  options["recipe"] = "atod_constant";
  EXPECT_THAT(Refusal(options),
              HasSubstr("algorithm.kl_coef_constant: found nothing, expected a "
                        "number: the ablation without annealing"));
  options["kl_coef_constant"] = 1;
  EXPECT_THAT(Refusal(options), HasSubstr("rl_coef_constant: found nothing"));
  options["rl_coef_constant"] = .3;
  for (const int s : {1, 40, 200}) {
    const Advantages a = Compute(StepBatch(), options, s);
    EXPECT_EQ(a.kl_coef, 1);
    EXPECT_EQ(a.rl_coef, .3);
  }
}

TEST(Recipes, TheMatchedAblationKeepsEveryTrajectorysMeanWeight) {
  Rng rng(24);
  const StepBatch batch = MakeBatch(RandomTrajectories(rng, 3, 4));
  const Advantages tdur = Compute(batch, SettingsOf("atod"));
  const Advantages flat = Compute(batch, SettingsOf("atod_one_matched"));
  for (int i = 0; i < batch.num_trajectories(); ++i) {
    double expected = 0, found = 0;
    for (int k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k) {
      const double n = batch.token_begin[k + 1] - batch.token_begin[k];
      expected += n * tdur.w[k];
      found += n * flat.w[k];
    }
    EXPECT_NEAR(found, expected, 1e-12);
  }
  for (const double w : Compute(batch, SettingsOf("atod_one")).w)
    EXPECT_TRUE(w == 0 || w == 1);
}

TEST(Recipes, TokenWeightsNormaliseOverTheBatchOrTheTrajectory) {
  // |Delta| 0 1 2 and 4; -log p 1 everywhere but once.
  const TestTrajectory one = {
      .group = 0, .reward = 0, .turns = {{{-1, -1, -1}, {-1, -2, -3}}}};
  const TestTrajectory two = {
      .group = 0, .reward = 0, .turns = {{{-1, -1}, {-5, -1}}}};
  const StepBatch batch = MakeBatch({one, two});
  EXPECT_THAT(Compute(batch, SettingsOf("atod_token_fair")).token_w,
              Near({.5, .75, 1, 1, .5}));
  EXPECT_THAT(Compute(batch, SettingsOf("atod_token")).token_w,
              Near({.5, .625, .75, 1, .5}));
  // The guards of the default profile hold for the fair one alone.
  EXPECT_THAT(Compute(batch, SettingsOf("atod_token_fair", "default")).token_w,
              Near({1, 1, 1, 1, 1}));
  EXPECT_THAT(Compute(batch, SettingsOf("atod_token", "default")).token_w,
              Near({.5, .625, .75, 1, .5}));
  EXPECT_THAT(Compute(batch, SettingsOf("atod_token")).w, Near({.625, .75}));
}

TEST(Recipes, TheReleasedTokenWeightsCutTheTailOfUncertainty) {
  TestTrajectory trajectory;
  TestTurn turn;
  for (int t = 0; t < 101; ++t) {
    turn.student.push_back(-.01 * t);  // h from 0 to 1, 0.98 quantile 0.98
    turn.teacher.push_back(-.01 * t - 1);
  }
  turn.student[100] = -50;
  turn.teacher[100] = -51;
  trajectory.turns = {turn};
  const auto w =
      Compute(MakeBatch({trajectory}), SettingsOf("atod_token")).token_w;
  // d is the same everywhere, so d~ = 0.5.
  EXPECT_NEAR(w[0], .5, 1e-12);
  EXPECT_NEAR(w[49], 1 - .5 * .5, 1e-12);
  EXPECT_NEAR(w[100], 1, 1e-12);
}

// --- T-DUR's switches. ---

TEST(Weights, ScoreModesUseOneOfTheTwoSignals) {
  const TestTrajectory t = Turns({{.1, .8}, {.4, .2}, {.25, .5}});
  Settings options = SettingsOf("atod");
  EXPECT_THAT(WeightsOf(t, options), Near({1, 1, .75}));
  options["tdur_score"] = "entropy";
  EXPECT_THAT(WeightsOf(t, options), Near({1, 0, .5}));
  options["tdur_score"] = "divergence";
  EXPECT_THAT(WeightsOf(t, options), Near({0, 1, .5}));
}

TEST(Weights, MeanPreservingOnesAreTheReferenceOnes) {
  Settings options = SettingsOf("atod");
  options["weight_mean_preserving"] = true;
  EXPECT_THAT(
      WeightsOf(ReferenceTrajectory(), options),
      Near({1.5965834223, 1.5965834223, 0.4671484908, 1.1708278430}, 1e-9));
}

TEST(Weights, TheKeptFractionZeroesAllButTheHighestAndKeepsTies) {
  Settings options = SettingsOf("atod");
  options["tdur_score"] = "divergence";
  const TestTrajectory t =
      Turns({{0, .1}, {.5, .1}, {1, .1}, {.5, .1}, {.25, .1}});
  options["weight_kept_fraction"] =
      .4;  // 2 of 5, and the third equals the second
  EXPECT_THAT(WeightsOf(t, options), Near({0, .5, 1, .5, 0}));
  options["weight_kept_fraction"] = .01;
  EXPECT_THAT(WeightsOf(t, options), Near({0, 0, 1, 0, 0}));
  options["weight_floor"] = .2;
  EXPECT_THAT(WeightsOf(t, options), Near({.2, .2, 1, .2, .2}));
  options["weight_kept_fraction"] = 1;
  EXPECT_THAT(WeightsOf(t, options), Near({.2, .6, 1, .6, .4}));
}

TEST(Weights, TheSoftCurriculumLetsLaterTurnsJoin) {
  Settings options = SettingsOf("atod_one");
  options["soft_curriculum_steps"] = 10;
  EXPECT_THAT(Refusal(options), HasSubstr("soft_curriculum_softness: found "
                                          "nothing"));
  options["soft_curriculum_softness"] = 2;
  const TestTrajectory t(Turns(std::vector(30, std::pair(.1, .1))));
  const auto early = WeightsOf(t, options, 1),
             late = WeightsOf(t, options, 200);
  for (int k = 0; k < 30; ++k) {
    EXPECT_NEAR(early[k],
                std::clamp(1 / (1 + std::exp(-(1.6 - k) / 2)), .05, 1.), 1e-12);
    EXPECT_GE(late[k], early[k]);
  }
  EXPECT_GT(late[20], early[20]);
  EXPECT_EQ(early[29], .05);
}

TEST(Signal, TheClampIsCounted) {
  const TestTrajectory t = {
      .group = 0, .reward = 0, .turns = {{{-1, -1, -1}, {-20, -1.5, -.9}}}};
  Settings options = SettingsOf("opd");
  options["delta_clamp"] = 5;
  const Advantages a = Compute(MakeBatch({t}), options);
  EXPECT_THAT(a.advantage, Near({-5, -.5, .1}));
  EXPECT_EQ(a.metrics.at("hybrid/clamped_tokens"), 1);
  options["delta_clamp"] = 0;
  EXPECT_FALSE(Compute(MakeBatch({t}), options)
                   .metrics.contains("hybrid/clamped_tokens"));
}

TEST(Signal, AScaleGoesBeyondTheTeacherAwayFromTheReference) {
  StepBatch batch =
      MakeBatch({{.group = 0, .reward = 0, .turns = {{{-1}, {-.4}}}}});
  batch.reference_logprob = {-.9};
  Settings options = SettingsOf("opd");
  const std::pair<double, double> cases[] = {
      {0, .1}, {.5, .35}, {1, .6}, {1.25, .725}, {2, 1.1}};
  for (const auto& [scale, expected] : cases) {
    options["delta_scale"] = scale;
    EXPECT_NEAR(Compute(batch, options).advantage[0], expected, 1e-12) << scale;
  }
}

TEST(Signal, ReturnToGoStaysInTheTurnAndIsNormalisedByLength) {
  const TestTrajectory t = {
      .group = 0,
      .reward = 0,
      .turns = {{{-1, -1, -1}, {-2, -1, -4}}, {{-1}, {-8}}}};
  Settings options = SettingsOf("opd");
  options["return_to_go"] = .5;
  EXPECT_THAT(Compute(MakeBatch({t}), options).advantage,
              Near({(-1 + .5 * 0 + .25 * -3) / 3, (0 + .5 * -3) / 2, -3, -7}));
}

TEST(Signal, TheCurrentStudentReplacesTheOldOneInDeltaAlone) {
  Rng rng(25);
  const StepBatch batch = MakeBatch(RandomTrajectories(rng, 2, 4));
  Settings options = SettingsOf("atod");
  options["delta_student"] = "current";
  const Advantages a = Compute(batch, options);
  const auto recipe = TryRecipe(options);
  ASSERT_TRUE(recipe.ok());
  for (int k = 0; k < batch.num_turns(); ++k) {
    for (int t = batch.token_begin[k]; t < batch.token_begin[k + 1]; ++t) {
      const auto with = [&](double current) {
        return AdvantageAt(batch, a, recipe->signal, k, t, current);
      };
      EXPECT_EQ(with(batch.old_logprob[t]), a.advantage[t]);
      EXPECT_NEAR(with(batch.old_logprob[t] - .25) - a.advantage[t],
                  a.kl_coef * a.w[k] * .25, 1e-12);
    }
  }
}

// --- Rewards and statistics. ---

TEST(Statistics, OverTurnsLongTrajectoriesCountMore) {
  const double up = 4.0747710662, down = -0.2444862640;
  const Advantages a =
      Compute(MakeBatch(MixedGroup()), SettingsOf("grpo", "released"));
  EXPECT_THAT(a.grpo, Near({up, down, down, up, down, down, down, up}, 1e-9));
  EXPECT_EQ(a.metrics.at("hybrid/flat_group_ratio"), 0);
}

TEST(Statistics, ASingleRowKeepsItsRewardWhereTheProfileSaysSo) {
  TestTrajectory alone = Turns({{.1, .2}});
  alone.reward = 10;
  EXPECT_NEAR(
      Compute(MakeBatch({alone}), SettingsOf("grpo", "released")).grpo[0],
      9.99999, 1e-6);
  EXPECT_EQ(Compute(MakeBatch({alone}), SettingsOf("grpo")).grpo[0], 0);
}

TEST(Statistics, ReleasedTakesThePenaltyOffTheOffendingRow) {
  std::vector<TestTrajectory> group(2);
  group[0].turns = std::vector<TestTurn>(5, TurnWith(.1, .2));
  group[1].turns = std::vector<TestTurn>(5, TurnWith(.1, .2));
  group[1].turns[4].valid = false;
  const Advantages a =
      Compute(MakeBatch(group), SettingsOf("grpo", "released"));
  // Nine rows at 0 and one at -0.1.
  for (int k = 0; k < 9; ++k)
    EXPECT_NEAR(a.group_advantage[k], 0.3162177663, 1e-9);
  EXPECT_NEAR(a.group_advantage[9], -2.8459598970, 1e-9);
  EXPECT_NEAR(a.grpo[1], (4 * 0.3162177663 - 2.8459598970) / 5, 1e-9);
  for (int t = 0; t < 10; ++t) EXPECT_EQ(a.advantage[t], a.group_advantage[t]);
}

TEST(Statistics, AfterStatisticsThePenaltyIsPlain) {
  auto group = MixedGroup();
  group[1].turns[3].valid = false;
  Settings options = SettingsOf("grpo");
  options["penalty_order"] = "after";
  const Advantages whole = Compute(MakeBatch(group), options);
  options["penalty_place"] = "turn";
  const Advantages row = Compute(MakeBatch(group), options);
  const StepBatch batch = MakeBatch(group);
  for (int k = batch.turn_begin[1]; k < batch.turn_begin[2]; ++k) {
    EXPECT_NEAR(whole.group_advantage[k], -0.7245686973 - .1, 1e-9);
    EXPECT_NEAR(row.group_advantage[k],
                -0.7245686973 - (k == batch.turn_begin[1] + 3 ? .1 : 0), 1e-9);
  }
  options["penalty_order"] = "before";
  EXPECT_THAT(Refusal(options), HasSubstr("algorithm.penalty_place"));
}

TEST(Statistics, KlToTheReferenceLowersTheReward) {
  TestTrajectory far, near;
  far.turns = {{{-1, -1}, {-1, -1}}};
  near.turns = {{{-1, -1}, {-1, -1}}};
  StepBatch batch = MakeBatch({far, near});
  Settings options = SettingsOf("grpo");
  options["kl_reward_coef"] = .5;
  options["kl_estimator"] = "k1";
  const auto without = TryCompute(batch, options, 1);
  EXPECT_THAT(std::string(without.status().message()),
              HasSubstr("reference_logprob: found none"));
  batch.reference_logprob = {-2, -3, -1, -1};
  const Advantages a = Compute(batch, options);
  EXPECT_THAT(a.shaped_reward, Near({-.5 * 3, 0}));
  EXPECT_LT(a.grpo[0], a.grpo[1]);
}

TEST(Statistics, DuplicatesFillUpToTheMultipleAndCountInStatistics) {
  Rng rng(26);
  const StepBatch batch = MakeBatch(RandomTrajectories(rng, 3, 4));
  const auto chosen = ChooseDuplicates(batch, 32, 7, 3);
  EXPECT_EQ((batch.num_turns() + chosen.size()) % 32, 0u);
  EXPECT_LT(chosen.size(), 32u);
  EXPECT_EQ(chosen, ChooseDuplicates(batch, 32, 7, 3));
  EXPECT_NE(chosen, ChooseDuplicates(batch, 32, 7, 4));
  std::vector<int32_t> source;
  const StepBatch padded = DuplicateRows(batch, chosen, &source);
  ASSERT_TRUE(ValidateBatch(padded).ok());
  EXPECT_EQ(padded.num_turns() % 32, 0);
  std::vector<int> copies(batch.num_turns());
  for (int k = 0; k < padded.num_turns(); ++k) {
    ++copies[source[k]];
    EXPECT_EQ(padded.turn_index[k], batch.turn_index[source[k]]);
    for (int t = 0; t < padded.token_begin[k + 1] - padded.token_begin[k]; ++t)
      EXPECT_EQ(padded.teacher_logprob[padded.token_begin[k] + t],
                batch.teacher_logprob[batch.token_begin[source[k]] + t]);
  }
  EXPECT_EQ(*std::min_element(copies.begin(), copies.end()), 1);
  // A trajectory of two turns and a duplicate passes the guard of three rows.
  const StepBatch two = MakeBatch({Turns({{.1, .2}, {.4, .5}})});
  const StepBatch three = DuplicateRows(two, {0}, &source);
  EXPECT_THAT(Compute(two, SettingsOf("atod", "released")).w, Near({1, 1}));
  EXPECT_THAT(Compute(three, SettingsOf("atod", "released")).w,
              Near({0, 1, 0}));
  EXPECT_TRUE(ChooseDuplicates(batch, 0, 7, 3).empty());
  EXPECT_TRUE(ChooseDuplicates(batch, batch.num_turns(), 7, 3).empty());
}

// --- Profiles. ---

TEST(Profiles, ReleasedIsEveryRowOfItsColumn) {
  const auto released = TryRecipe(SettingsOf("atod", "released"));
  const auto paper = TryRecipe(SettingsOf("atod", "paper"));
  ASSERT_TRUE(released.ok() && paper.ok());
  EXPECT_EQ(released->tdur.min_turns, 3);
  EXPECT_EQ(released->tdur.min_divergence, .01);
  EXPECT_EQ(released->reward.statistics, Unit::kTurn);
  EXPECT_EQ(released->reward.penalty_place, Unit::kTurn);
  EXPECT_EQ(released->reward.penalty_order, PenaltyOrder::kBefore);
  EXPECT_TRUE(released->reward.group.raw_single);
  EXPECT_EQ(released->aggregation.how, Aggregation::kMicroBatch);
  EXPECT_EQ(released->aux.entropy_coef, .001);
  EXPECT_EQ(released->surrogate.dual_clip, 3);
  EXPECT_EQ(released->kl.anneal_steps, 150);
  EXPECT_EQ(paper->tdur.min_turns, 0);
  EXPECT_EQ(paper->reward.statistics, Unit::kTrajectory);
  EXPECT_EQ(paper->aux.entropy_coef, 0);
  EXPECT_EQ(paper->surrogate.dual_clip, 0);
  EXPECT_EQ(paper->kl.anneal_steps, 80);
  // A switch that the configuration sets wins.
  Settings options = SettingsOf("atod", "released");
  options["dual_clip"] = 0;
  options["statistics_over"] = "trajectory";
  options["penalty_place"] = "episode";
  options["coef_anneal_steps"] = 80;
  const auto mixed = TryRecipe(options);
  ASSERT_TRUE(mixed.ok()) << mixed.status();
  EXPECT_EQ(mixed->surrogate.dual_clip, 0);
  EXPECT_EQ(mixed->reward.statistics, Unit::kTrajectory);
  EXPECT_EQ(mixed->kl.anneal_steps, 80);
}

// --- What must hold for every recipe and profile. ---

TEST(EveryRecipe, GivesFiniteAdvantagesAndMetrics) {
  Rng rng(27);
  const StepBatch batch = MakeBatch(RandomTrajectories(rng, 4, 4));
  for (const std::string profile : kProfilesOfRecipes) {
    for (const std::string recipe : kRecipes) {
      const Advantages a = Compute(batch, SettingsOf(recipe, profile));
      ASSERT_EQ(a.advantage.size(), batch.old_logprob.size()) << recipe;
      for (const double x : a.advantage) EXPECT_TRUE(std::isfinite(x));
      for (const double w : a.w) EXPECT_GE(w, 0);
      for (const auto& [tag, x] : a.metrics)
        EXPECT_TRUE(std::isfinite(x)) << tag;
    }
  }
}

TEST(EveryRecipe, DoesNotDependOnTheOrderOfTrajectories) {
  Rng rng(28);
  const auto trajectories = RandomTrajectories(rng, 4, 5);
  const StepBatch batch = MakeBatch(trajectories);
  std::vector<int> order(trajectories.size());
  std::iota(order.begin(), order.end(), 0);
  for (int round = 0; round < 5; ++round) {
    rng.Shuffle(order);
    std::vector<TestTrajectory> shuffled;
    for (const int i : order) shuffled.push_back(trajectories[i]);
    const StepBatch other = MakeBatch(shuffled);
    for (const std::string profile : kProfilesOfRecipes) {
      for (const std::string recipe : kRecipes) {
        const Advantages a = Compute(batch, SettingsOf(recipe, profile));
        const Advantages b = Compute(other, SettingsOf(recipe, profile));
        for (size_t row = 0; row < order.size(); ++row) {
          const int from = batch.token_begin[batch.turn_begin[order[row]]];
          const int to = other.token_begin[other.turn_begin[row]];
          const int end = other.token_begin[other.turn_begin[row + 1]];
          for (int t = 0; to + t < end; ++t)
            EXPECT_NEAR(b.advantage[to + t], a.advantage[from + t], 1e-12)
                << recipe << " " << profile;
        }
      }
    }
  }
}

// Turns without tokens are what padding a step looks like here.
TEST(EveryRecipe, EmptyTurnsChangeNothingButStatisticsOverTurns) {
  Rng rng(29);
  auto trajectories = RandomTrajectories(rng, 3, 4);
  for (auto& t : trajectories)
    for (auto& turn : t.turns) turn.valid = true;
  auto padded = trajectories;
  for (auto& t : padded) t.turns.emplace_back();
  for (const std::string profile : kProfilesOfRecipes) {
    for (const std::string recipe : kRecipes) {
      Settings options = SettingsOf(recipe, profile);
      const Advantages a = Compute(MakeBatch(trajectories), options);
      const Advantages b = Compute(MakeBatch(padded), options);
      const bool rows = profile == "released" && a.rl_coef > 0;
      if (rows) {
        // Every turn is a row of its group, the empty one too.
        for (int g = 0; g < 3; ++g) {
          std::vector<double> rewards;
          for (const auto& t : padded)
            if (t.group == g)
              rewards.insert(rewards.end(), t.turns.size(), t.reward);
          const double n = rewards.size();
          double mean = 0, squares = 0;
          for (const double r : rewards) mean += r / n;
          for (const double r : rewards) squares += (r - mean) * (r - mean);
          const double std = std::sqrt(squares / (n - 1)) + 1e-6;
          for (size_t i = 0, k = 0; i < padded.size(); ++i) {
            for (size_t turn = 0; turn < padded[i].turns.size(); ++turn, ++k) {
              if (padded[i].group != g) continue;
              const double expected =
                  squares == 0 ? 0 : (padded[i].reward - mean) / std;
              EXPECT_NEAR(b.group_advantage[k], expected, 1e-12) << recipe;
            }
          }
        }
        EXPECT_NE(b.advantage, a.advantage) << recipe;
      } else {
        EXPECT_EQ(b.advantage, a.advantage) << recipe << " " << profile;
      }
    }
  }
}

TEST(EveryRecipe, ADuplicatedTurnMovesNoAdvantageOverTrajectories) {
  // For SOD, whose weights come from the first turn, and for those of T-DUR,
  // whose range stays; statistics over turns do move.
  Rng rng(30);
  const StepBatch batch = MakeBatch(RandomTrajectories(rng, 3, 4));
  std::vector<int32_t> source;
  const StepBatch padded =
      DuplicateRows(batch, ChooseDuplicates(batch, 64, 1, 1), &source);
  for (const std::string recipe : {"opd", "grpo", "sod", "atod"}) {
    Settings options = SettingsOf(recipe);
    options["invalid_action_penalty"] = 0;
    const Advantages a = Compute(batch, options), b = Compute(padded, options);
    for (int k = 0; k < padded.num_turns(); ++k) {
      const int from = batch.token_begin[source[k]];
      for (int t = padded.token_begin[k]; t < padded.token_begin[k + 1]; ++t)
        EXPECT_EQ(b.advantage[t], a.advantage[from + t - padded.token_begin[k]])
            << recipe;
    }
  }
}

TEST(EveryRecipe, NeedsATeacherOrNot) {
  StepBatch batch = MakeBatch(MixedGroup());
  batch.teacher_logprob.clear();
  for (const std::string recipe : kRecipes) {
    const auto result = TryCompute(batch, SettingsOf(recipe), 1);
    EXPECT_EQ(result.ok(), recipe == "grpo" || recipe == "sdar") << recipe;
  }
}

}  // namespace
}  // namespace atod::learner
