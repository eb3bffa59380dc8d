#include "report/curves.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace atod::report {
namespace {

Points Scaled(Points points, double factor) {
  for (auto& [x, y] : points) y *= factor;
  return points;
}

// Mean over each point and the `reach` before and after it.
Points Smoothed(const Points& points, size_t reach) {
  Points out;
  for (size_t i = 0; i < points.size(); ++i) {
    const size_t from = i < reach ? 0 : i - reach;
    const size_t to = std::min(points.size(), i + reach + 1);
    double sum = 0;
    for (size_t k = from; k < to; ++k) sum += points[k].second;
    out.emplace_back(points[i].first, sum / static_cast<double>(to - from));
  }
  return out;
}

constexpr size_t kReach = 2;

Line Panel(const RunData& run, int colour) {
  Line line{.name = absl::StrFormat("evaluation panel, T = %s",
                                    run.key("sampling.eval_temperature", "?")),
            .colour = colour,
            .markers = true};
  for (const PanelEval& eval : run.panel) {
    double wins = 0;
    for (const Game& g : eval.games) wins += g.success;
    const Estimate e = Wilson(wins, static_cast<double>(eval.games.size()));
    line.points.emplace_back(eval.step, 100 * e.value);
    line.band.push_back(
        {static_cast<double>(eval.step), 100 * e.low, 100 * e.high});
  }
  return line;
}

Chart LearningCurve(const RunData& run) {
  const std::string split = run.key("eval.split", "valid_seen");
  Chart chart{
      .title = "Success",
      .note = absl::StrCat(
          "Training rollouts: each step, and the mean of ", 2 * kReach + 1,
          " steps. Evaluation: 95 % interval of the panel's games "
          "(Wilson)."),
      .y_label = "success, %",
      .y_min = 0,
      .y_max = 100,
      .wide = true};
  const Points rollouts = Scaled(run.series("episode/success_rate"), 100);
  chart.lines.push_back({.colour = 1, .points = rollouts, .faint = true});
  chart.lines.push_back(
      {.name = absl::StrFormat("training rollouts, T = %s",
                               run.key("sampling.train.temperature", "1")),
       .colour = 1,
       .points = Smoothed(rollouts, kReach)});
  chart.lines.push_back(Panel(run, 0));
  for (const NamedEval& eval : run.evals) {
    if (eval.policy != "teacher" || eval.split != split) continue;
    double wins = 0;
    for (const Game& g : eval.games) wins += g.success;
    chart.levels.push_back(
        {100 * wins / static_cast<double>(eval.games.size()),
         absl::StrFormat("teacher, %d games of %s", eval.games.size(), split)});
  }
  return chart;
}

Chart Length(const RunData& run) {
  Line panel{.name = "evaluation panel", .colour = 0, .markers = true};
  for (const PanelEval& eval : run.panel)
    panel.points.emplace_back(eval.step, eval.turns());
  return {.title = "Length of an episode",
          .note = "Failed episodes count at the turn limit.",
          .y_label = "turns",
          .y_min = 0,
          .lines = {{.name = "training rollouts",
                     .colour = 1,
                     .points = run.series("episode/length")},
                    std::move(panel)}};
}

struct Tag {
  const char* tag;
  const char* name;
  double factor = 1;
};

// One line a tag.
Chart Of(const RunData& run, Chart chart, const std::vector<Tag>& tags) {
  for (const Tag& tag : tags) {
    Points points = Scaled(run.series(tag.tag), tag.factor);
    if (points.empty()) continue;
    chart.lines.push_back({.name = tag.name,
                           .colour = static_cast<int>(chart.lines.size()),
                           .points = std::move(points)});
  }
  return chart;
}

Chart RatioChart() {
  return {.title = "Teacher's signal over the reward's",
          .note =
              "hybrid/opd_rl_ratio; the method wants it above 1 early and "
              "below 1 late. Absent where every group is flat.",
          .y_label = "ratio (log)",
          .log_y = true,
          .levels = {{1, "equal"}}};
}

Chart SdarLoss() {
  return {.title = "SDAR loss",
          .note = "actor/sdar_loss, before its coefficient.",
          .y_label = "nats a token"};
}

Chart ReferenceKl() {
  return {.title = "KL to the reference",
          .note = "actor/kl_loss, before its coefficient.",
          .y_label = "nats a token"};
}

// A chart with one line a group. `reach` smooths the means over steps.
Chart Compared(const std::vector<RunData>& runs,
               const std::vector<Group>& groups, Chart chart,
               const std::string& tag, double factor, size_t reach) {
  for (size_t g = 0; g < groups.size(); ++g) {
    std::map<double, std::pair<double, size_t>> sums;  // step: sum, runs
    std::vector<Line> faint;
    for (const size_t r : groups[g].runs) {
      Points points = Scaled(runs[r].series(tag), factor);
      for (const auto& [x, y] : points) {
        sums[x].first += y;
        ++sums[x].second;
      }
      if (groups[g].runs.size() > 1)
        faint.push_back({.colour = static_cast<int>(g),
                         .points = std::move(points),
                         .faint = true});
    }
    Line mean{.name = groups[g].label, .colour = static_cast<int>(g)};
    for (const auto& [x, sum] : sums)
      if (sum.second == groups[g].runs.size())
        mean.points.emplace_back(x,
                                 sum.first / static_cast<double>(sum.second));
    if (mean.points.empty()) continue;
    mean.points = Smoothed(mean.points, reach);
    mean.markers = mean.points.size() <= 20 && groups.size() <= 4;
    for (Line& line : faint) chart.lines.push_back(std::move(line));
    chart.lines.push_back(std::move(mean));
  }
  return chart;
}

}  // namespace

RunCurves CurvesOf(const RunData& run) {
  RunCurves out;
  out.learning = {LearningCurve(run), Length(run)};
  out.learning.push_back(
      Of(run,
         {.title = "Groups without a reward signal",
          .note = "Share of groups whose rewards are all equal; high at first "
                  "is normal.",
          .y_label = "share",
          .y_min = 0,
          .y_max = 1},
         {{"hybrid/flat_group_ratio", "flat groups"}}));
  out.signals = {
      Of(run,
         {.title = "Coefficients",
          .note = "kappa must not rise, rho must not fall (Eq. 11, 12).",
          .y_label = "coefficient"},
         {{"hybrid/kl_coef", "kappa: hybrid/kl_coef"},
          {"hybrid/rl_coef", "rho: hybrid/rl_coef"}}),
      Of(run,
         {.title = "Signal magnitudes",
          .note = "Means over tokens of |kappa w Delta| and |rho A_GRPO|.",
          .y_label = "mean of the size"},
         {{"hybrid/opd_signal_abs_mean", "teacher"},
          {"hybrid/rl_signal_abs_mean", "reward"}}),
      Of(run, RatioChart(), {{"hybrid/opd_rl_ratio", "ratio"}}),
  };
  if (run.has_teacher())
    out.signals.push_back(
        Of(run,
           {.title = "Teacher gap",
            .note = "Mean over tokens of |log pi_T - log pi_old|; d and h are "
                    "means over turns.",
            .y_label = "nats"},
           {{"hybrid/teacher_gap_abs_mean", "gap, by token"},
            {"tdur/disagreement", "d, by turn"},
            {"tdur/uncertainty", "h, by turn"}}));
  out.weights = {Of(
      run,
      {.title = "Turn weights",
       .note = "Mean w of a turn, and the share of trajectories that no "
               "guard keeps at w = 1.",
       .y_label = "weight, share",
       .y_min = 0,
       .y_max = 1},
      {{"tdur/weight_mean", "mean w"}, {"tdur/active_ratio", "active ratio"}})};
  out.policy = {
      Of(run, {.title = "Entropy", .y_label = "nats a token"},
         {{"actor/entropy", "actor/entropy"}}),
      Of(run,
         {.title = "Actions",
          .note = "Share of turns.",
          .y_label = "%",
          .y_max = 100},
         {{"episode/valid_action_ratio", "well-formed", 100},
          {"episode/admissible_ratio", "offered by the environment", 100}}),
      Of(run, SdarLoss(), {{"actor/sdar_loss", "actor/sdar_loss"}}),
      Of(run, ReferenceKl(), {{"actor/kl_loss", "actor/kl_loss"}}),
      Of(run, {.title = "Gradient norm", .y_label = "norm before clipping"},
         {{"actor/grad_norm", "actor/grad_norm"}}),
      Of(run,
         {.title = "Distance to the old policy",
          .note = "Mean over tokens and updates of log pi_old - log pi.",
          .y_label = "nats a token"},
         {{"actor/ppo_kl", "actor/ppo_kl"}}),
      Of(run,
         {.title = "Clipped tokens",
          .note = "Share of tokens whose ratio the surrogate clips.",
          .y_label = "%",
          .y_min = 0},
         {{"actor/pg_clipfrac", "actor/pg_clipfrac", 100}}),
      Of(run,
         {.title = "Length of a response", .y_label = "tokens", .y_min = 0},
         {{"response_length/mean", "response_length/mean"}}),
      Of(run, {.title = "Learning rate", .y_label = "lr"},
         {{"actor/lr", "actor/lr"}}),
      Of(run, {.title = "Time", .y_label = "seconds", .y_min = 0},
         {{"timing/step_seconds", "step"},
          {"timing/rollout_seconds", "waiting for rollouts"},
          {"timing/update_seconds", "updates"},
          {"timing/eval_seconds", "evaluation"}})};
  return out;
}

RunCurves CompareCurves(const std::vector<RunData>& runs,
                        const std::vector<Group>& groups) {
  const auto of = [&](Chart chart, const std::string& tag, double factor = 1,
                      size_t reach = kReach) {
    return Compared(runs, groups, std::move(chart), tag, factor, reach);
  };
  constexpr size_t kAsIs = 0;
  RunCurves out;
  Chart learning = of(
      {.title = absl::StrFormat("Success on the evaluation panel, T = %s",
                                runs[0].key("sampling.eval_temperature", "?")),
       .note = "A line is the mean of a group's runs, single runs are faint. "
               "Below, "
               "lines of single steps are smoothed over 5 of them.",
       .y_label = "success, %",
       .y_min = 0,
       .y_max = 100,
       .wide = true},
      "val/success_rate", 100, kAsIs);
  out.learning = {
      std::move(learning),
      of({.title =
              absl::StrFormat("Success of training rollouts, T = %s",
                              runs[0].key("sampling.train.temperature", "1")),
          .y_label = "success, %",
          .y_min = 0,
          .y_max = 100},
         "episode/success_rate", 100),
      of({.title = "Length of an episode on the panel",
          .y_label = "turns",
          .y_min = 0},
         "val/length", 1, kAsIs),
  };
  out.signals = {
      of({.title = "kappa: hybrid/kl_coef", .y_label = "coefficient"},
         "hybrid/kl_coef", 1, kAsIs),
      of({.title = "rho: hybrid/rl_coef", .y_label = "coefficient"},
         "hybrid/rl_coef", 1, kAsIs),
      of({.title = "Teacher's signal",
          .note = "Mean over tokens of |kappa w Delta|.",
          .y_label = "nats"},
         "hybrid/opd_signal_abs_mean"),
      of({.title = "Reward's signal",
          .note = "Mean over tokens of |rho A_GRPO|.",
          .y_label = "advantage units"},
         "hybrid/rl_signal_abs_mean"),
      of(RatioChart(), "hybrid/opd_rl_ratio"),
      of({.title = "Teacher gap",
          .note = "Mean over tokens of |log pi_T - log pi_old|.",
          .y_label = "nats"},
         "hybrid/teacher_gap_abs_mean")};
  out.weights = {
      of({.title = "Mean turn weight", .y_label = "w", .y_min = 0, .y_max = 1},
         "tdur/weight_mean"),
      of({.title = "Disagreement d", .y_label = "nats"}, "tdur/disagreement")};
  out.policy = {
      of({.title = "Entropy", .y_label = "nats a token"}, "actor/entropy"),
      of({.title = "Actions that the environment offers",
          .y_label = "% of turns",
          .y_max = 100},
         "episode/admissible_ratio", 100),
      of(SdarLoss(), "actor/sdar_loss"),
      of(ReferenceKl(), "actor/kl_loss"),
      of({.title = "Gradient norm", .y_label = "norm before clipping"},
         "actor/grad_norm"),
      of({.title = "Groups without a reward signal",
          .y_label = "share",
          .y_min = 0,
          .y_max = 1},
         "hybrid/flat_group_ratio")};
  return out;
}

std::vector<Chart> DiagnosisCharts(const std::vector<DiagnosisFile>& files) {
  struct Column {
    const char* title;
    const char* unit;
    double DiagnosisRow::*mean;
    double DiagnosisRow::*error;
  };
  const std::vector<Column> columns = {
      {"d by turn: disagreement", "nats", &DiagnosisRow::d,
       &DiagnosisRow::d_stderr},
      {"h by turn: uncertainty", "nats", &DiagnosisRow::h,
       &DiagnosisRow::h_stderr},
      {"w by turn", "weight", &DiagnosisRow::w, &DiagnosisRow::w_stderr},
      {"Trajectories that reach a turn", "samples", &DiagnosisRow::samples,
       nullptr}};
  std::vector<Chart> out;
  for (const Column& column : columns) {
    Chart chart{.title = column.title,
                .x_label = "turn",
                .y_label = column.unit,
                .y_min = 0};
    for (const DiagnosisFile& file : files) {
      Line line{.name = file.name,
                .colour = static_cast<int>(chart.lines.size())};
      for (const DiagnosisRow& row : file.turns) {
        line.points.emplace_back(row.turn, row.*column.mean);
        if (column.error == nullptr) continue;
        const double half = 1.96 * row.*column.error;
        line.band.push_back({row.turn, std::max(0.0, row.*column.mean - half),
                             row.*column.mean + half});
      }
      chart.lines.push_back(std::move(line));
    }
    out.push_back(std::move(chart));
  }
  return out;
}

std::vector<Heat> TurnHeats(const RunData& run) {
  Heat w{.title = "Mean turn weight w",
         .note =
             "By turn and step. Blank: no trajectory got there; late turns "
             "have few samples."},
      d{.title = "Mean disagreement d, nats"},
      h{.title = "Mean uncertainty h, nats"};
  const std::string picked =
      run.columns.size() < run.recorded_columns
          ? absl::StrFormat(" %d of %d recorded steps, evenly picked.",
                            run.columns.size(), run.recorded_columns)
          : "";
  w.note += picked;
  for (const TurnColumn& column : run.columns) {
    for (Heat* heat : {&w, &d, &h}) {
      heat->x.push_back(column.step);
      heat->cells.emplace_back(column.turns.size());
    }
    for (size_t k = 0; k < column.turns.size(); ++k) {
      const TurnCell& cell = column.turns[k];
      if (cell.samples == 0) continue;
      w.cells.back()[k] = cell.w;
      d.cells.back()[k] = cell.d;
      h.cells.back()[k] = cell.h;
    }
  }
  // d and h have long tails: the colours end at the 98 % quantile.
  for (Heat* heat : {&d, &h}) {
    std::vector<double> values;
    for (const auto& column : heat->cells)
      for (const auto& cell : column)
        if (cell.has_value()) values.push_back(*cell);
    if (values.empty()) continue;
    std::sort(values.begin(), values.end());
    heat->high = std::max(1e-6, values[(values.size() - 1) * 98 / 100]);
    heat->note = absl::StrCat("Colours end at the 98 % quantile.", picked);
  }
  std::vector<Heat> out = {std::move(w)};
  // A recipe without a teacher has no d.
  if (d.high > 1e-6) out.push_back(std::move(d));
  out.push_back(std::move(h));
  return out;
}

}  // namespace atod::report
