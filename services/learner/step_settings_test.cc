#include "services/learner/step_settings.h"

#include "absl/strings/str_cat.h"
#include "common/config/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

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

TEST(StepSettingsTest, FollowTheSchedules) {
  const v1::RunConfig config =
      Config(absl::StrCat(kRun, "algorithm:\n  coef_anneal_steps: 4\n"));
  const auto first = SettingsAt(config, 1), last = SettingsAt(config, 6);
  ASSERT_TRUE(first.ok() && last.ok());
  EXPECT_NEAR(last->lr, 1e-5, 1e-18);
  EXPECT_GT(first->lr, last->lr);
  EXPECT_DOUBLE_EQ(last->kl_coef, 0.1);
  EXPECT_DOUBLE_EQ(last->rl_coef, 2.0);
  EXPECT_DOUBLE_EQ(first->kl_coef, 1 - 0.9 / 4);
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
