#include "services/learner/algorithm/advantages.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/device/cpu_device.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/algorithm/advantages_for_test.h"
#include "services/learner/algorithm/batch_for_test.h"

namespace atod::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const char* const kProfiles[] = {"paper", "default"};

Settings Options(const std::string& profile,
                 const std::string& recipe = "atod") {
  Settings options;
  options["profile"] = profile;
  options["recipe"] = recipe;
  return options;
}

// Weights of one trajectory with turns of these (d, h).
std::vector<double> Weights(const std::string& profile,
                            const std::vector<std::pair<double, double>>& dh) {
  return Compute(MakeBatch({Turns(dh)}), Options(profile)).w;
}

// --- Reference values. ---

TEST(Advantages, FourTurnsGiveTheReferenceStatisticsAndAdvantages) {
  TestTrajectory winner = ReferenceTrajectory();
  winner.reward = 1;
  TestTrajectory loser = ReferenceTrajectory();
  for (const std::string profile : kProfiles) {
    const Advantages a =
        Compute(MakeBatch({winner, loser}), Options(profile), 40);
    EXPECT_NEAR(a.kl_coef, 11.0 / 20, 1e-15);
    EXPECT_NEAR(a.rl_coef, 3.0 / 2, 1e-15);
    const auto first4 = [](std::vector<double> v) {
      v.resize(4);
      return v;
    };
    EXPECT_THAT(first4(a.d), Near({3. / 8, 2, 1. / 8, 3. / 4}));
    EXPECT_THAT(first4(a.h), Near({3. / 4, 1. / 8, 1. / 4, 1. / 2}));
    EXPECT_THAT(first4(a.d_norm), Near({2. / 15, 1, 0, 1. / 3}));
    EXPECT_THAT(first4(a.h_norm), Near({1, 0, 1. / 5, 3. / 5}));
    EXPECT_THAT(first4(a.w), Near({1, 1, 1. / 5, 11. / 15}));
    // The reference has A_GRPO = 1; the reward term is exactly rho * A.
    const std::vector<double> with_unit_reward = {
        131. / 80, 71. / 40,   2. / 5,     3. / 2,    589. / 400,
        3. / 2,    589. / 400, 779. / 600, 329. / 300};
    ASSERT_EQ(a.advantage.size(), 18u);
    for (int t = 0; t < 9; ++t) {
      EXPECT_NEAR(a.advantage[t] - a.rl_coef * a.grpo[0] + a.rl_coef,
                  with_unit_reward[t], 1e-12)
          << t;
      EXPECT_NEAR(a.advantage[9 + t] - a.rl_coef * a.grpo[1] + a.rl_coef,
                  with_unit_reward[t], 1e-12)
          << t;
    }
  }
}

TEST(Advantages, EdgeCasesFollowTheProfilesGuards) {
  EXPECT_THAT(Weights("paper", {{.3, .2}}), Near({.75}));
  EXPECT_THAT(Weights("paper", {{.1, .2}, {.4, .5}}), Near({0, 1}));
  EXPECT_THAT(Weights("paper", {{.1, .5}, {.4, .2}}), Near({1, 1}));
  for (const std::string profile : kProfiles) {
    EXPECT_THAT(Weights(profile, {{.5, 0}, {.5, .5}, {.5, 1}}),
                Near({.5, .75, 1}));
    EXPECT_THAT(Weights(profile, {{.5, 1}, {.5, 1}, {.5, 1}}),
                Near({.75, .75, .75}));
  }
  const std::vector<std::pair<double, double>> close = {
      {.001, .1}, {.004, .2}, {.009, .4}};
  EXPECT_THAT(Weights("paper", close), Near({0, 0.5833333333, 1}, 1e-10));
  for (const std::string guarded : {"default", "released"}) {
    EXPECT_THAT(Weights(guarded, {{.3, .2}}), Near({1}));
    EXPECT_THAT(Weights(guarded, {{.1, .2}, {.4, .5}}), Near({1, 1}));
    EXPECT_THAT(Weights(guarded, {{.1, .5}, {.4, .2}}), Near({1, 1}));
    EXPECT_THAT(Weights(guarded, close), Near({1, 1, 1}));
  }
}

TEST(Advantages, ThePapersCaseStudyIsReproduced) {
  for (const std::string profile : kProfiles) {
    EXPECT_THAT(Weights(profile, {{.101, .037},
                                  {.228, .025},
                                  {.022, .010},
                                  {.019, .006},
                                  {.138, .008}}),
                Near({1, 1, .1415, 0, .5972}, 5e-5));
  }
}

TEST(Advantages, SchedulesAreLinearThenConstant) {
  struct Case {
    int anneal, s;
    double kl, rl;
  };
  for (const Case& c :
       {Case{80, 0, 1, 1}, Case{80, 1, 0.98875, 1.0125}, Case{80, 40, .55, 1.5},
        Case{80, 79, .11125, 1.9875}, Case{80, 80, .1, 2},
        Case{80, 1000, .1, 2}, Case{150, 1, .994, 1.0066666667},
        Case{150, 75, .55, 1.5}, Case{150, 149, .106, 1.9933333333},
        Case{150, 150, .1, 2}}) {
    Settings options = Options("paper");
    options["coef_anneal_steps"] = c.anneal;
    const Advantages a = Compute(StepBatch(), options, c.s);
    EXPECT_NEAR(a.kl_coef, c.kl, 1e-10) << c.s;
    EXPECT_NEAR(a.rl_coef, c.rl, 1e-10) << c.s;
  }
}

TEST(Advantages, GroupStatisticsAreOverTrajectoriesWithBesselsCorrection) {
  const double up = 1.2076144955, down = -0.7245686973;
  for (const std::string profile : kProfiles) {
    EXPECT_THAT(Compute(MakeBatch(MixedGroup()), Options(profile)).grpo,
                Near({up, down, down, up, down, down, down, up}, 1e-10));
  }
}

TEST(Advantages, OtherDivisorsOfAGroupAreAsGiven) {
  const auto grpo = [](const char* divisor) {
    Settings options = Options("paper");
    options["group_std"] = divisor;
    return Compute(MakeBatch(MixedGroup()), options).grpo;
  };
  const double up = 1.2909941821, down = -0.7745965092;
  EXPECT_THAT(grpo("population"),
              Near({up, down, down, up, down, down, down, up}, 1e-10));
  EXPECT_THAT(grpo("none"),
              Near({6.25, -3.75, -3.75, 6.25, -3.75, -3.75, -3.75, 6.25}));
}

TEST(Advantages, AGroupOfEqualRewardsHasExactlyZero) {
  // 0.1 has no exact binary form: the mean of seven differs from it.
  std::vector<TestTrajectory> group;
  for (int i = 0; i < 7; ++i)
    group.push_back({.group = 3, .reward = 0.1, .turns = {TurnWith(.1, .2)}});
  const Advantages a = Compute(MakeBatch(group), Options("paper"));
  for (double x : a.grpo) EXPECT_EQ(x, 0.0);
  EXPECT_EQ(a.metrics.at("hybrid/flat_group_ratio"), 1.0);
  EXPECT_FALSE(a.metrics.contains("hybrid/opd_rl_ratio"));
}

TEST(Advantages, AGroupOfOneHasZeroAndIsCounted) {
  auto group = MixedGroup();
  group.push_back({.group = 1, .reward = 10, .turns = {TurnWith(.1, .2)}});
  const Advantages a = Compute(MakeBatch(group), Options("default"));
  EXPECT_EQ(a.grpo[8], 0.0);
  EXPECT_EQ(a.metrics.at("hybrid/singleton_groups"), 1.0);
  EXPECT_EQ(a.metrics.at("hybrid/flat_group_ratio"), 0.5);
}

TEST(Advantages, PenaltyAloneMovesAdvantagesOnlyInThePaperProfile) {
  std::vector<TestTrajectory> group(10);
  for (auto& trajectory : group) trajectory.turns = {TurnWith(.1, .2)};
  group[9].turns[0].valid = false;
  const Advantages paper = Compute(MakeBatch(group), Options("paper"));
  for (int i = 0; i < 9; ++i) EXPECT_NEAR(paper.grpo[i], 0.3162177663, 1e-9);
  EXPECT_NEAR(paper.grpo[9], -2.8459598970, 1e-9);
  const Advantages safe = Compute(MakeBatch(group), Options("default"));
  for (double x : safe.grpo) EXPECT_EQ(x, 0.0);
}

TEST(Advantages, PenaltyLowersAnEpisodesRewardForEachInvalidTurn) {
  auto group = MixedGroup();
  group[1].turns[3].valid = false;
  group[1].turns[7].valid = false;
  for (const std::string profile : kProfiles) {
    const Advantages a = Compute(MakeBatch(group), Options(profile));
    EXPECT_THAT(a.shaped_reward, Near({10, -.2, 0, 10, 0, 0, 0, 10}));
    EXPECT_LT(a.grpo[1], a.grpo[2]);
  }
}

// --- Properties on random batches. ---

TEST(Advantages, WeightsStayInTheirBoundsAndOneTurnLeads) {
  Rng rng(7);
  for (int round = 0; round < 50; ++round) {
    const StepBatch batch = MakeBatch(RandomTrajectories(rng, 3, 4));
    const Advantages a = Compute(batch, Options("paper"));
    for (int i = 0; i < batch.num_trajectories(); ++i) {
      double largest = 0;
      bool varies = false;
      for (int k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k) {
        EXPECT_GE(a.w[k], 0);
        EXPECT_LE(a.w[k], 1);
        EXPECT_GE(a.w[k], std::max(a.d_norm[k], a.h_norm[k]) - 1e-15);
        largest = std::max(largest, a.w[k]);
        varies |= a.d_norm[k] == 1 || a.h_norm[k] == 1;
      }
      if (varies) {
        EXPECT_EQ(largest, 1);
      }
    }
  }
}

TEST(Advantages, OrderOfTrajectoriesChangesNothing) {
  Rng rng(8);
  const auto trajectories = RandomTrajectories(rng, 4, 5);
  std::vector<int> order(trajectories.size());
  std::iota(order.begin(), order.end(), 0);
  const StepBatch batch = MakeBatch(trajectories);
  const Advantages expected = Compute(batch, Options("paper"));
  for (int round = 0; round < 10; ++round) {
    rng.Shuffle(order);
    std::vector<TestTrajectory> shuffled;
    for (int i : order) shuffled.push_back(trajectories[i]);
    const StepBatch other = MakeBatch(shuffled);
    const Advantages a = Compute(other, Options("paper"));
    for (size_t row = 0; row < order.size(); ++row) {
      const int i = order[row];
      EXPECT_NEAR(a.grpo[row], expected.grpo[i], 1e-14);
      const int turn = other.turn_begin[row], from = batch.turn_begin[i];
      for (int k = 0; turn + k < other.turn_begin[row + 1]; ++k) {
        EXPECT_EQ(a.w[turn + k], expected.w[from + k]);
        const int token = other.token_begin[turn + k];
        for (int t = 0; token + t < other.token_begin[turn + k + 1]; ++t)
          EXPECT_NEAR(a.advantage[token + t],
                      expected.advantage[batch.token_begin[from + k] + t],
                      1e-13);
      }
    }
  }
}

TEST(Advantages, ShiftingOrScalingAllDivergencesLeavesWeights) {
  const std::vector<std::pair<double, double>> dh = {
      {.2, .5}, {.9, .1}, {.4, .8}, {.6, .3}};
  const auto expected = Weights("paper", dh);
  auto shifted = dh, scaled = dh;
  for (auto& [d, h] : shifted) d += 1.5;
  for (auto& [d, h] : scaled) d *= 7;
  EXPECT_THAT(Weights("paper", shifted), Near(expected, 1e-14));
  EXPECT_THAT(Weights("paper", scaled), Near(expected, 1e-14));
}

TEST(Advantages, ScalingRewardsLeavesGroupAdvantages) {
  auto group = MixedGroup();
  const auto expected = Compute(MakeBatch(group), Options("paper")).grpo;
  for (auto& trajectory : group)
    trajectory.reward = 100 * trajectory.reward - 3;
  EXPECT_THAT(Compute(MakeBatch(group), Options("paper")).grpo,
              Near(expected, 1e-6));
}

TEST(Advantages, CoefficientsNeverTurnBack) {
  const Settings options = Options("default");
  Advantages before = Compute(StepBatch(), options, 0);
  for (int s = 1; s <= 200; ++s) {
    const Advantages now = Compute(StepBatch(), options, s);
    EXPECT_LE(now.kl_coef, before.kl_coef) << s;
    EXPECT_GE(now.rl_coef, before.rl_coef) << s;
    before = now;
  }
}

TEST(Advantages, TurnWeightsNeverTouchTheReward) {
  Rng rng(9);
  auto trajectories = RandomTrajectories(rng, 3, 4);
  for (auto& trajectory : trajectories)
    for (auto& turn : trajectory.turns) turn.teacher = turn.student;
  const StepBatch batch = MakeBatch(trajectories);
  // The teacher equals the student: the whole advantage is rho * A.
  const Advantages a = Compute(batch, Options("paper"));
  for (int i = 0; i < batch.num_trajectories(); ++i) {
    for (int t = batch.token_begin[batch.turn_begin[i]];
         t < batch.token_begin[batch.turn_begin[i + 1]]; ++t)
      EXPECT_EQ(a.advantage[t], a.rl_coef * a.grpo[i]);
  }
}

TEST(Advantages, AnEmptyResponseHasNoWeightAndMovesNoOther) {
  const TestTrajectory full = ReferenceTrajectory();
  TestTrajectory holed = full;
  holed.turns.insert(holed.turns.begin() + 1, TestTurn{});
  holed.turns.push_back(TestTurn{});
  for (const std::string profile : kProfiles) {
    const Advantages expected = Compute(MakeBatch({full}), Options(profile));
    const Advantages a = Compute(MakeBatch({holed}), Options(profile));
    EXPECT_THAT(a.w, ElementsAre(expected.w[0], 0, expected.w[1], expected.w[2],
                                 expected.w[3], 0));
    EXPECT_EQ(a.advantage, expected.advantage);
    for (const auto& [tag, value] : a.metrics)
      EXPECT_TRUE(std::isfinite(value)) << tag;
    EXPECT_EQ(a.metrics.at("tdur/weight_mean"),
              expected.metrics.at("tdur/weight_mean"));
  }
  // Empty turns do not help a trajectory over the guard of three turns.
  TestTrajectory two;
  two.turns = {TurnWith(.1, .2), TestTurn{}, TurnWith(.4, .5)};
  EXPECT_THAT(Compute(MakeBatch({two}), Options("default")).w,
              ElementsAre(1, 0, 1));
}

// --- Recipes and metrics. ---

TEST(Advantages, OpdIsThePlainTeacherGap) {
  Rng rng(10);
  const StepBatch batch = MakeBatch(RandomTrajectories(rng, 2, 4));
  const Advantages a = Compute(batch, Options("default", "opd"));
  EXPECT_EQ(a.kl_coef, 1);
  EXPECT_EQ(a.rl_coef, 0);
  for (int t = 0; t < batch.num_tokens(); ++t)
    EXPECT_EQ(a.advantage[t], batch.teacher_logprob[t] - batch.old_logprob[t]);
}

TEST(Advantages, GrpoNeedsNoTeacher) {
  StepBatch batch = MakeBatch(MixedGroup());
  batch.teacher_logprob.clear();
  const Advantages a = Compute(batch, Options("default", "grpo"));
  EXPECT_EQ(a.kl_coef, 0);
  EXPECT_EQ(a.rl_coef, 1);
  EXPECT_EQ(a.advantage.front(), a.grpo.front());
  EXPECT_FALSE(a.metrics.contains("tdur/weight_mean"));
  const auto without = TryCompute(batch, Options("default"), 1);
  EXPECT_THAT(std::string(without.status().message()),
              HasSubstr("teacher_logprob: found none"));
}

TEST(Advantages, MetricsAreMeansOverTokensTurnsAndTrajectories) {
  TestTrajectory one = ReferenceTrajectory();
  one.reward = 10;
  TestTrajectory two;  // under the guard
  two.turns = {{.student = {-1}, .teacher = {-2}}};
  const Advantages a = Compute(MakeBatch({one, two}), Options("default"), 40);
  const auto& m = a.metrics;
  EXPECT_EQ(m.at("tdur/active_ratio"), 0.5);
  EXPECT_NEAR(m.at("tdur/weight_mean"), (1 + 1 + .2 + 11. / 15 + 1) / 5, 1e-12);
  EXPECT_NEAR(m.at("tdur/disagreement"), (.375 + 2 + .125 + .75 + 1) / 5,
              1e-12);
  EXPECT_NEAR(m.at("tdur/uncertainty"), (.75 + .125 + .25 + .5 + 1) / 5, 1e-12);
  const double opd =
      .55 * (.25 + .5 + 2 + .2 * (.25 + .25) + 11. / 15 * 1.5 + 1) / 10;
  EXPECT_NEAR(m.at("hybrid/opd_signal_abs_mean"), opd, 1e-12);
  const double rl = 1.5 * std::abs(a.grpo[0]);
  EXPECT_NEAR(m.at("hybrid/rl_signal_abs_mean"), rl, 1e-12);
  EXPECT_NEAR(m.at("hybrid/opd_rl_ratio"), opd / rl, 1e-12);
  EXPECT_EQ(m.at("hybrid/flat_group_ratio"), 0);
  EXPECT_EQ(m.at("hybrid/kl_coef"), a.kl_coef);
}

// --- Bad input. ---

TEST(Advantages, BadColumnsAreNamed) {
  const StepBatch good = MakeBatch({ReferenceTrajectory()});
  const auto message = [](const StepBatch& batch) {
    return std::string(TryCompute(batch, {}, 1).status().message());
  };
  StepBatch batch = good;
  batch.old_logprob[4] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(message(batch), HasSubstr("old_logprob[4]: found nan"));
  batch = good;
  batch.teacher_logprob[0] = -std::numeric_limits<double>::infinity();
  EXPECT_THAT(message(batch), HasSubstr("teacher_logprob[0]: found -inf"));
  batch = good;
  batch.teacher_logprob.pop_back();
  EXPECT_THAT(message(batch),
              HasSubstr("teacher_logprob: found 8 rows, expected 9 rows"));
  batch = good;
  batch.token_begin[2] = 1;
  EXPECT_THAT(message(batch),
              HasSubstr("token_begin[2]: found 1, expected at least 2"));
  batch = good;
  batch.turn_begin.clear();
  EXPECT_THAT(message(batch), HasSubstr("turn_begin: found 0 rows"));
}

TEST(Advantages, SettingsThatDoNotGoTogetherAreNamed) {
  const auto message = [](const Settings& settings) {
    return std::string(TryRecipe(settings).status().message());
  };
  EXPECT_EQ(message({{"kl_coef_min", 2}}),
            "algorithm.kl_coef_init: found 1, expected at least kl_coef_min 2");
  EXPECT_EQ(message({{"rl_coef_init", 3}}),
            "algorithm.rl_coef_max: found 2, expected at least rl_coef_init 3");
  EXPECT_THAT(message({{"dual_clip", .5}}),
              HasSubstr("algorithm.dual_clip: found 0.5"));
  EXPECT_THAT(message({{"delta_student", "current"}, {"return_to_go", .9}}),
              HasSubstr("algorithm.return_to_go: found 0.9"));
  // Single values are the loader's.
  EXPECT_THAT(message({{"recipe", "ppo"}}), HasSubstr("atod_constant"));
  EXPECT_THAT(message({{"rl_coef_max", "nan"}}), HasSubstr("rl_coef_max"));
  EXPECT_THAT(message({{"weights", "none"}}),
              HasSubstr("algorithm.weights: found \"none\", expected one of"));
}

}  // namespace
}  // namespace atod::learner
