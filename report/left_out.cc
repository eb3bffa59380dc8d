#include "report/left_out.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/base/printable.h"
#include "report/summary.h"

namespace atod::report {
namespace {

constexpr char kErrorsOf[] = "episode/errors_";

// Samples of training steps.
void AddTraining(const RunData& run, std::vector<std::string>& out) {
  double errors = 0, dropped = 0;
  std::map<std::string, double> kinds;
  std::vector<uint32_t> steps;
  for (const StepRow& row : run.steps) {
    const double here = row.value("episode/errors").value_or(0);
    const double all = row.value("episode/dropped").value_or(here);
    errors += here;
    dropped += all;
    if (std::max(here, all) > 0) steps.push_back(row.step);
    for (const auto& [tag, value] : row.scalars)
      if (tag.starts_with(kErrorsOf) && value > 0)
        kinds[tag.substr(sizeof(kErrorsOf) - 1)] += value;
  }
  if (steps.empty()) return;
  const std::string by_kind =
      absl::StrJoin(kinds, ", ", [](std::string* text, const auto& kind) {
        absl::StrAppendFormat(text, "%s %.0f", kind.first, kind.second);
      });
  out.push_back(absl::StrFormat(
      "Training: %.0f episodes are in no mean and no gradient, %.0f because "
      "they ended in errors%s, at %d of %d steps: %s.",
      std::max(errors, dropped), errors,
      by_kind.empty() ? "" : absl::StrCat(" (", by_kind, ")"), steps.size(),
      run.steps.size(), Steps(steps)));
}

// Games of the panel, by step.
void AddPanel(const RunData& run, std::vector<std::string>& out) {
  struct Part {
    double played = 0, left_out = 0;
  };
  std::map<uint32_t, Part> parts;
  for (const StepRow& row : run.steps) {
    const double errors = row.value("val/errors").value_or(0);
    const auto played = row.value("val/tasks");
    if (played)
      parts[row.step] = {*played, row.value("val/dropped").value_or(errors)};
  }
  std::string first;
  for (const PanelEval& eval : run.panel) {
    parts[eval.step] = {static_cast<double>(eval.games.size()),
                        static_cast<double>(eval.left_out.size())};
    if (first.empty() && !eval.left_out.empty())
      first = absl::StrCat("; the first, ", eval.left_out[0].task, ": ",
                           eval.left_out[0].error);
  }
  std::vector<std::string> counts;
  std::set<double> sizes;
  for (const auto& [step, part] : parts) {
    sizes.insert(part.played);
    if (part.left_out > 0)
      counts.push_back(absl::StrFormat("%.0f of %.0f after step %d",
                                       part.left_out,
                                       part.played + part.left_out, step));
  }
  if (!counts.empty())
    out.push_back(absl::StrCat("Evaluations: games left out of their means: ",
                               absl::StrJoin(counts, ", "), OneLine(first),
                               "."));
  if (sizes.size() > 1)
    out.push_back(absl::StrFormat(
        "Evaluations are over %.0f to %.0f games: their rates are not of the "
        "same games.",
        *sizes.begin(), *sizes.rbegin()));
  std::vector<uint32_t> others;
  for (const PanelEval& eval : run.panel)
    if (PanelId(run, eval) != PanelId(run, run.panel.back()))
      others.push_back(eval.step);
  if (!others.empty())
    out.push_back(absl::StrCat(
        "Evaluations after ", Steps(others),
        " are of another panel than the last: they are in the curves alone."));
}

void AddHeldOut(const RunData& run, std::vector<std::string>& out) {
  for (const NamedEval& eval : run.evals) {
    if (eval.left_out.empty()) continue;
    out.push_back(absl::StrFormat(
        "%s on %s: %d of %d games left out; the first, %s: %s.", eval.policy,
        eval.split, eval.left_out.size(),
        eval.left_out.size() + eval.games.size(), eval.left_out[0].task,
        OneLine(eval.left_out[0].error)));
  }
}

}  // namespace

std::vector<std::string> LeftOut(const RunData& run) {
  std::vector<std::string> out;
  AddTraining(run, out);
  AddPanel(run, out);
  AddHeldOut(run, out);
  out.insert(out.end(), run.damage.begin(), run.damage.end());
  return out;
}

std::vector<std::string> LeftOutOf(const std::vector<RunData>& runs) {
  std::vector<std::string> out;
  for (const RunData& run : runs)
    for (const std::string& line : LeftOut(run))
      out.push_back(runs.size() == 1 ? line
                                     : absl::StrCat(run.name, ": ", line));
  return out;
}

}  // namespace atod::report
