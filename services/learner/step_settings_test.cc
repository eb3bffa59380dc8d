#include "services/learner/step_settings.h"

#include "absl/strings/str_cat.h"
#include "common/config/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/recipe_of.h"

namespace atod::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

v1::RunConfig Config(const std::string& yaml) {
  return config::ParseRunConfig(yaml, "test")->config;
}

constexpr char kRun[] =
    "steps: 6\noptimizer:\n  lr: 1.0e-3\n  lr_end: 1.0e-5\n"
    "  schedule: linear\n";

StepSettings At(const v1::RunConfig& config, uint32_t step) {
  return SettingsAt(config, RecipeOf(config.algorithm()).value(), step);
}

TEST(StepSettingsTest, FollowTheSchedules) {
  const v1::RunConfig config =
      Config(absl::StrCat(kRun, "algorithm:\n  coef_anneal_steps: 4\n"));
  const StepSettings first = At(config, 1), last = At(config, 6);
  EXPECT_NEAR(last.lr, 1e-5, 1e-18);
  EXPECT_GT(first.lr, last.lr);
  EXPECT_DOUBLE_EQ(last.coefficients.kl, 0.1);
  EXPECT_DOUBLE_EQ(last.coefficients.rl, 2.0);
  EXPECT_DOUBLE_EQ(first.coefficients.kl, 1 - 0.9 / 4);
  EXPECT_EQ(first.coefficients.s, 1);
}

TEST(StepSettingsTest, SayHowEpisodesOfTheStepArePlayed) {
  const v1::RunConfig config = Config(absl::StrCat(
      kRun,
      "env:\n  max_turns: 9\n"
      "sampling:\n  train: {temperature: 0.5, top_p: 0.75, top_k: 3, "
      "max_tokens: 7}\n  eval_temperature: 0.25\n"
      "algorithm:\n  recipe: tcod\n  tcod_steps: 2\n  first_step: 0\n"));
  const StepSettings at = At(config, 3);
  EXPECT_EQ(at.coefficients.s, 2);
  EXPECT_EQ(at.temperature, 0.5);
  EXPECT_EQ(at.eval_temperature, 0.25);
  EXPECT_EQ(at.top_p, 0.75);
  EXPECT_EQ(at.top_k, 3u);
  EXPECT_EQ(at.max_tokens, 7u);
  EXPECT_EQ(at.max_turns, 2u) << "TCOD's depth";
  EXPECT_EQ(at.eval_max_turns, 9u);
}

TEST(DescribeChangesTest, NameEachKeyWithBothValuesAndEachScheduleThatJumps) {
  const v1::RunConfig before = Config(kRun);
  EXPECT_THAT(*DescribeChanges(before, before, 3), IsEmpty());
  v1::RunConfig after = before;
  after.set_name("fork");
  EXPECT_THAT(*DescribeChanges(before, after, 3), IsEmpty());
  after.set_steps(12);
  EXPECT_THAT(
      *DescribeChanges(before, after, 6),
      ElementsAre(HasSubstr("steps: 6 before, 12 now"),
                  HasSubstr("the schedule of the learning rate jumps: ")));
  after.set_steps(6);
  after.mutable_algorithm()->set_kl_coef_init(3);
  EXPECT_THAT(
      *DescribeChanges(before, after, 3),
      ElementsAre(HasSubstr("algorithm.kl_coef_init: 1 before, 3 now"),
                  HasSubstr("the schedule of the kl coefficient jumps: ")));
  after = before;
  after.mutable_rpc()->clear_teacher();
  EXPECT_THAT(*DescribeChanges(before, after, 3),
              ElementsAre(HasSubstr("rpc.teacher: \"127.0.0.1:7702\" before, "
                                    "unset now")));
}

}  // namespace
}  // namespace atod::learner
