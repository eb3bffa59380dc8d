#include "report/health.h"

#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::report {
namespace {

using testing::HasSubstr;

// A run of `steps` whose tag takes value(step).
RunData RunWith(const std::string& tag, uint32_t steps,
                const std::function<double(uint32_t)>& value) {
  RunData run;
  run.config["steps"] = std::to_string(steps);
  for (uint32_t s = 1; s <= steps; ++s)
    run.steps.push_back({s, {{"step", s}, {tag, value(s)}}});
  return run;
}

HealthCheck Find(const RunData& run, const std::string& name) {
  for (const HealthCheck& check : CheckHealth(run))
    if (check.name == name) return check;
  ADD_FAILURE() << "no check " << name;
  return {};
}

TEST(Health, KlCoefThatRisesIsBadAndNamesTheStep) {
  const std::string name = "hybrid/kl_coef should not rise";
  const auto falling = [](uint32_t s) { return 1 - 0.01 * s; };
  EXPECT_EQ(Find(RunWith("hybrid/kl_coef", 20, falling), name).verdict,
            Verdict::kGood);
  RunData run = RunWith("hybrid/kl_coef", 20, falling);
  run.steps[11].scalars["hybrid/kl_coef"] = 0.95;
  const HealthCheck check = Find(run, name);
  EXPECT_EQ(check.verdict, Verdict::kBad);
  EXPECT_THAT(check.finding, HasSubstr("at step 12"));
}

TEST(Health, RlCoefThatFallsIsBad) {
  const auto check = Find(
      RunWith("hybrid/rl_coef", 9, [](uint32_t s) { return 2.0 - s * 0.1; }),
      "hybrid/rl_coef should not fall");
  EXPECT_EQ(check.verdict, Verdict::kBad);
  EXPECT_THAT(check.finding, HasSubstr("at step 2"));
}

TEST(Health, EntropyBelowATenthOfItsHighestIsACollapse) {
  const std::string name = "actor/entropy should not collapse";
  const auto to = [](double last) {
    return [last](uint32_t s) { return s < 10 ? 0.5 : last; };
  };
  EXPECT_EQ(Find(RunWith("actor/entropy", 10, to(0.051)), name).verdict,
            Verdict::kGood);
  EXPECT_EQ(Find(RunWith("actor/entropy", 10, to(0.049)), name).verdict,
            Verdict::kBad);
}

TEST(Health, RatioIsJudgedAtBothEndsWhereOneSignalHandsOver) {
  RunData run = RunWith("hybrid/opd_rl_ratio", 50,
                        [](uint32_t s) { return s <= 5 ? 3.0 : 0.5; });
  for (StepRow& row : run.steps) {
    row.scalars["hybrid/kl_coef"] = 1 - 0.01 * row.step;
    row.scalars["hybrid/rl_coef"] = 1;
  }
  const std::string early = "hybrid/opd_rl_ratio should be above 1 early";
  const std::string late = "hybrid/opd_rl_ratio should be below 1 late";
  EXPECT_EQ(Find(run, early).verdict, Verdict::kGood);
  EXPECT_EQ(Find(run, late).verdict, Verdict::kGood);
  for (StepRow& row : run.steps) row.scalars["hybrid/opd_rl_ratio"] = 2;
  EXPECT_EQ(Find(run, late).verdict, Verdict::kNotice);
  for (StepRow& row : run.steps) row.scalars["hybrid/kl_coef"] = 1;
  EXPECT_EQ(Find(run, late).verdict, Verdict::kUnknown);
}

TEST(Health, DeadSignalAtTheEndIsBadEarlierIsANotice) {
  const std::string name = "the reward's signal should be alive";
  const auto dead = [](uint32_t from, uint32_t to) {
    return RunWith("health/dead_rl_signal", 20, [=](uint32_t s) {
      return s >= from && s <= to ? 1.0 : 0.0;
    });
  };
  EXPECT_EQ(Find(dead(21, 21), name).verdict, Verdict::kGood);
  EXPECT_EQ(Find(dead(1, 4), name).verdict, Verdict::kNotice);
  EXPECT_EQ(Find(dead(17, 20), name).verdict, Verdict::kBad);
}

TEST(Health, SignalThatTheRecipeDoesNotUseIsNotJudged) {
  RunData run =
      RunWith("health/dead_opd_signal", 20, [](uint32_t) { return 0; });
  const std::string name = "the teacher's signal should be alive";
  for (StepRow& row : run.steps) row.scalars["hybrid/kl_coef"] = 0;
  EXPECT_EQ(Find(run, name).verdict, Verdict::kUnknown);
  EXPECT_EQ(Find(run, name).finding, "the recipe has no teacher");
  run.steps[0].scalars["hybrid/kl_coef"] = 1;
  EXPECT_EQ(Find(run, name).verdict, Verdict::kGood);
  for (StepRow& row : run.steps) {
    row.scalars["health/dead_rl_signal"] = 0;
    row.scalars["hybrid/rl_coef"] = 0;
  }
  EXPECT_EQ(Find(run, "the reward's signal should be alive").finding,
            "the recipe has no reward");
}

TEST(Health, LongGapBetweenStepsIsSeen) {
  const auto gap = [](double seconds) {
    return RunWith("time", 20, [=](uint32_t s) {
      return 1e9 + 2.0 * s + (s >= 8 ? seconds : 0);
    });
  };
  EXPECT_EQ(Find(gap(200), "steps should not stall").verdict, Verdict::kGood);
  const HealthCheck check = Find(gap(400), "steps should not stall");
  EXPECT_EQ(check.verdict, Verdict::kNotice);
  EXPECT_THAT(check.finding, HasSubstr("before step 8"));
}

TEST(Health, MissingOrRepeatedStepIsBad) {
  RunData run = RunWith("time", 20, [](uint32_t s) { return s; });
  const std::string name = "every step should be recorded once";
  EXPECT_EQ(Find(run, name).verdict, Verdict::kGood);
  run.repeated_steps = 1;
  EXPECT_EQ(Find(run, name).verdict, Verdict::kBad);
  run.repeated_steps = 0;
  run.steps.erase(run.steps.begin() + 4);
  EXPECT_EQ(Find(run, name).verdict, Verdict::kBad);
}

TEST(Health, ChecksWithoutDataAreUnknown) {
  const RunData run = RunWith("other", 5, [](uint32_t) { return 0; });
  EXPECT_EQ(Find(run, "actor/entropy should not collapse").verdict,
            Verdict::kUnknown);
  EXPECT_EQ(Find(run, "hybrid/kl_coef should not rise").verdict,
            Verdict::kUnknown);
}

}  // namespace
}  // namespace atod::report
