#include "report/health.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "report/left_out.h"
#include "report/statistics.h"

namespace atod::report {
namespace {

using Points = std::vector<std::pair<double, double>>;

// The first step at which the series goes the wrong way by more than rounding;
// `sign` +1: it must not rise, -1: it must not fall.
HealthCheck Monotone(const RunData& run, const char* tag, int sign) {
  const Points points = run.series(tag);
  HealthCheck check{
      absl::StrCat(tag, sign > 0 ? " should not rise" : " should not fall")};
  if (points.empty()) return check;
  for (size_t i = 1; i < points.size(); ++i) {
    const double change = sign * (points[i].second - points[i - 1].second);
    if (change <= 1e-6) continue;
    check.verdict = Verdict::kBad;
    check.finding = absl::StrFormat(
        "%s from %.4g to %.4g at step %.0f", sign > 0 ? "rises" : "falls",
        points[i - 1].second, points[i].second, points[i].first);
    return check;
  }
  check.verdict = Verdict::kGood;
  check.finding = absl::StrFormat("%.4g at step %.0f, %.4g at step %.0f",
                                  points.front().second, points.front().first,
                                  points.back().second, points.back().first);
  return check;
}

HealthCheck Entropy(const RunData& run) {
  HealthCheck check{"actor/entropy should not collapse"};
  const Points points = run.series("actor/entropy");
  if (points.empty()) return check;
  double most = 0;
  for (const auto& [step, value] : points) {
    most = std::max(most, value);
    if (value >= 0.1 * most || check.verdict == Verdict::kBad) continue;
    check.verdict = Verdict::kBad;
    check.finding = absl::StrFormat(
        "%.3g nats at step %.0f, below a tenth of its highest (%.3g)", value,
        step, most);
  }
  if (check.verdict == Verdict::kBad) return check;
  check.verdict = Verdict::kGood;
  check.finding = absl::StrFormat("%.3g nats at first, %.3g at last",
                                  points.front().second, points.back().second);
  return check;
}

// The mean ratio over a tenth of the configured steps at either end.
HealthCheck Ratio(const RunData& run, bool early) {
  HealthCheck check{early ? "hybrid/opd_rl_ratio should be above 1 early"
                          : "hybrid/opd_rl_ratio should be below 1 late"};
  const Points kl = run.series("hybrid/kl_coef");
  const Points rl = run.series("hybrid/rl_coef");
  const auto constant = [](const Points& points) {
    return std::all_of(points.begin(), points.end(), [&](const auto& p) {
      return p.second == points.front().second;
    });
  };
  if (constant(kl) && constant(rl)) {
    check.finding = "the recipe hands nothing over";
    return check;
  }
  const double steps =
      run.number("steps", run.steps.empty() ? 0 : run.steps.back().step);
  std::vector<double> values;
  for (const auto& [step, value] : run.series("hybrid/opd_rl_ratio"))
    if (early ? step <= std::max(1.0, 0.1 * steps) : step > 0.9 * steps)
      values.push_back(value);
  if (values.empty()) {
    check.finding = early ? "every early group was flat" : "not that far yet";
    return check;
  }
  const double mean = Mean(values);
  // Which signal leads is a matter of strengths, not a fault.
  check.verdict = early == (mean > 1) ? Verdict::kGood : Verdict::kNotice;
  check.finding = absl::StrFormat("mean %.3g over the %s tenth of the steps",
                                  mean, early ? "first" : "last");
  return check;
}

// `what` is "teacher" or "reward", whose signal `coef` multiplies.
HealthCheck Dead(const RunData& run, const char* tag, const char* coef,
                 const char* what) {
  HealthCheck check{absl::StrCat("the ", what, "'s signal should be alive")};
  const Points coefs = run.series(coef);
  if (!coefs.empty() &&
      std::all_of(coefs.begin(), coefs.end(),
                  [](const auto& p) { return p.second == 0; })) {
    check.finding = absl::StrCat("the recipe has no ", what);
    return check;
  }
  const Points points = run.series(tag);
  if (points.empty()) return check;
  std::vector<double> dead;
  for (const auto& [step, value] : points)
    if (value > 0) dead.push_back(step);
  if (dead.empty()) {
    check.verdict = Verdict::kGood;
    check.finding = "at every step";
    return check;
  }
  const bool at_end = points.back().second > 0;
  check.verdict = at_end ? Verdict::kBad : Verdict::kNotice;
  check.finding =
      absl::StrFormat("dead at %d of %d steps (first %.0f, last %.0f)%s",
                      dead.size(), points.size(), dead.front(), dead.back(),
                      at_end ? ", and still at the end" : "");
  return check;
}

// A step is late when it takes ten times the median, at least five minutes.
HealthCheck Stalls(const RunData& run) {
  HealthCheck check{"steps should not stall"};
  const Points times = run.series("time");
  if (times.size() < 3) return check;
  std::vector<double> gaps;
  for (size_t i = 1; i < times.size(); ++i)
    gaps.push_back(times[i].second - times[i - 1].second);
  std::vector<double> sorted = gaps;
  std::nth_element(sorted.begin(), sorted.begin() + sorted.size() / 2,
                   sorted.end());
  const double median = sorted[sorted.size() / 2];
  const auto longest = std::max_element(gaps.begin(), gaps.end());
  const double step = times[longest - gaps.begin() + 1].first;
  const bool late = *longest > std::max(10 * median, 300.0);
  check.verdict = late ? Verdict::kNotice : Verdict::kGood;
  check.finding = absl::StrFormat(
      "median %.3g s between steps, longest %.3g s before step %.0f%s", median,
      *longest, step, late ? " (a stop and a resume look the same)" : "");
  return check;
}

HealthCheck Unbroken(const RunData& run) {
  HealthCheck check{"every step should be recorded once"};
  uint32_t missing = 0;
  for (size_t i = 1; i < run.steps.size(); ++i)
    missing += run.steps[i].step - run.steps[i - 1].step - 1;
  check.verdict =
      missing == 0 && run.repeated_steps == 0 ? Verdict::kGood : Verdict::kBad;
  check.finding =
      absl::StrFormat("steps %d to %d, %d missing, %d repeated; configured: %s",
                      run.steps.front().step, run.steps.back().step, missing,
                      run.repeated_steps, run.key("steps", "?"));
  return check;
}

HealthCheck ValidActions(const RunData& run) {
  HealthCheck check{"actions should stay well-formed"};
  const Points points = run.series("episode/valid_action_ratio");
  if (points.empty()) return check;
  double most = 0;
  for (const auto& [step, value] : points) most = std::max(most, value);
  const double last = points.back().second;
  check.verdict = last < 0.8 * most ? Verdict::kNotice : Verdict::kGood;
  check.finding = absl::StrFormat("%.1f %% at the end, %.1f %% at most",
                                  100 * last, 100 * most);
  return check;
}

HealthCheck Whole(const RunData& run) {
  const std::vector<std::string> left_out = LeftOut(run);
  return {"nothing should be left out of the numbers",
          left_out.empty() ? Verdict::kGood : Verdict::kNotice,
          left_out.empty() ? "nothing is" : absl::StrJoin(left_out, " ")};
}

HealthCheck Largest(const RunData& run, const char* tag, const char* name,
                    double bound, const char* unit) {
  HealthCheck check{name};
  const Points points = run.series(tag);
  if (points.empty()) return check;
  const auto worst = std::max_element(
      points.begin(), points.end(), [](const auto& a, const auto& b) {
        return std::abs(a.second) < std::abs(b.second);
      });
  check.verdict =
      std::abs(worst->second) > bound ? Verdict::kBad : Verdict::kGood;
  check.finding = absl::StrFormat("largest %.3g%s, at step %.0f", worst->second,
                                  unit, worst->first);
  return check;
}

}  // namespace

std::vector<HealthCheck> CheckHealth(const RunData& run) {
  return {
      Monotone(run, "hybrid/kl_coef", +1),
      Monotone(run, "hybrid/rl_coef", -1),
      Entropy(run),
      Ratio(run, /*early=*/true),
      Ratio(run, /*early=*/false),
      Dead(run, "health/dead_opd_signal", "hybrid/kl_coef", "teacher"),
      Dead(run, "health/dead_rl_signal", "hybrid/rl_coef", "reward"),
      Stalls(run),
      Unbroken(run),
      Whole(run),
      ValidActions(run),
      Largest(run, "rollout/mismatch_kl",
              "rollout and learner should agree on log-probs", 0.05,
              " nats a token"),
      Largest(run, "actor/skipped_updates", "no update should be skipped", 0,
              " in a step"),
  };
}

}  // namespace atod::report
