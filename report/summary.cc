#include "report/summary.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/file.h"

namespace atod::report {
namespace {

constexpr size_t kRolloutSteps = 10;

EvalPoint PointOf(const PanelEval& eval) {
  double wins = 0;
  for (const Game& g : eval.games) wins += g.success;
  return {eval.step, Wilson(wins, static_cast<double>(eval.games.size())),
          eval.turns()};
}

size_t SizeOf(const PanelEval& eval) {
  return eval.games.size() + eval.left_out.size();
}

std::vector<double> Wins(const PanelEval& eval) {
  std::vector<double> out(SizeOf(eval), NAN);
  for (const Game& g : eval.games) out[g.place] = g.success;
  return out;
}

// Of each game over the evaluations that played it.
std::vector<double> MeanWins(const std::vector<const PanelEval*>& evals) {
  std::vector<double> sums(SizeOf(*evals[0])), counts = sums;
  for (const PanelEval* eval : evals)
    for (const Game& g : eval->games) {
      sums[g.place] += g.success;
      ++counts[g.place];
    }
  for (size_t i = 0; i < sums.size(); ++i)
    sums[i] = counts[i] > 0 ? sums[i] / counts[i] : NAN;
  return sums;
}

// What all names begin with, up to a hyphen, tells nobody anything; numbers
// alone tell less.
void StripCommonPart(std::vector<Group>& groups) {
  if (groups.size() < 2) return;
  std::string common = groups[0].label;
  for (const Group& group : groups) {
    const auto end = std::mismatch(common.begin(), common.end(),
                                   group.label.begin(), group.label.end());
    common.erase(end.first, common.end());
  }
  const size_t hyphen = common.rfind('-');
  if (hyphen == std::string::npos) return;
  const size_t cut = hyphen + 1;
  for (const Group& group : groups)
    if (group.label.size() == cut || absl::ascii_isdigit(group.label[cut]))
      return;
  for (Group& group : groups) group.label.erase(0, cut);
}

}  // namespace

std::string PanelId(const RunData& run, const PanelEval& eval) {
  std::vector<std::string> games(SizeOf(eval));
  for (const auto* part : {&eval.games, &eval.left_out})
    for (const Game& g : *part)
      games[g.place] = absl::StrCat(g.panel, " ", g.task, "\n");
  std::string text = absl::StrJoin(games, "");
  for (const char* key :
       {"sampling.eval_temperature", "sampling.train.max_tokens",
        "env.max_turns", "env.prompt_set", "env.history_length",
        "eval.panel_seed"})
    absl::StrAppend(&text, key, "=", run.key(key), "\n");
  return HashHex(text).substr(0, 12);
}

RunSummary Summarize(const RunData& run) {
  RunSummary out;
  out.name = run.name;
  out.recipe = run.key("algorithm.recipe", "?");
  out.seed = run.key("seed", "?");
  out.steps = run.steps.back().step;

  // Evaluations of other games than the last one's cannot be averaged with it.
  std::vector<const PanelEval*> evals;
  for (const PanelEval& eval : run.panel) {
    if (PanelId(run, eval) != PanelId(run, run.panel.back())) continue;
    if (eval.step == 0) {
      out.before = PointOf(eval);
    } else {
      evals.push_back(&eval);
    }
  }
  out.evaluations = evals.size();
  if (!evals.empty()) {
    const PanelEval& last = *evals.back();
    const PanelEval& best = **std::max_element(
        evals.begin(), evals.end(), [](const PanelEval* a, const PanelEval* b) {
          return a->success_rate() < b->success_rate();
        });
    out.panel = PanelId(run, last);
    out.games = SizeOf(last);
    out.last = PointOf(last);
    out.best = PointOf(best);
    out.last_games = Wins(last);
    out.best_games = Wins(best);
    out.mean_count = std::min<size_t>(
        evals.size(), static_cast<size_t>(run.number("eval.mean_last", 5)));
    const std::vector<const PanelEval*> tail(evals.end() - out.mean_count,
                                             evals.end());
    out.mean_games = MeanWins(tail);
    for (const PanelEval* eval : tail)
      out.mean_last_turns += eval->turns() / out.mean_count;
    out.mean_last = BootstrapMean(out.mean_games);
    out.best_bias =
        BiasOfMaximum(out.mean_last->value, out.games, out.evaluations);
  }

  std::vector<double> rates, turns;
  for (const auto& [step, value] : run.series("episode/success_rate"))
    rates.push_back(value);
  for (const auto& [step, value] : run.series("episode/length"))
    turns.push_back(value);
  const auto tail = [](std::vector<double>& x) {
    if (x.size() > kRolloutSteps) x.erase(x.begin(), x.end() - kRolloutSteps);
  };
  tail(rates);
  tail(turns);
  if (!rates.empty()) {
    out.rollout_steps = rates.size();
    out.rollout = BootstrapMean(rates);
    out.rollout_turns = Mean(turns);
  }
  return out;
}

bool IsIncidental(const std::string& key) {
  for (const char* prefix :
       {"rpc.", "metrics.", "threads.", "rollout.", "checkpoint."})
    if (absl::StartsWith(key, prefix)) return true;
  return key == "name" || key == "runs_dir" || key == "seed";
}

std::vector<Group> GroupRuns(const std::vector<RunData>& runs) {
  std::vector<Group> groups;
  std::map<std::string, size_t> by_config;
  for (size_t i = 0; i < runs.size(); ++i) {
    std::string text;
    for (const auto& [key, value] : runs[i].config)
      if (!IsIncidental(key)) absl::StrAppend(&text, key, "=", value, "\n");
    // Without a configuration nothing is known to be equal.
    if (runs[i].config.empty()) text = absl::StrCat("run ", i);
    const auto [it, fresh] = by_config.emplace(text, groups.size());
    if (fresh) groups.emplace_back();
    groups[it->second].runs.push_back(i);
  }
  // The name that the runs share without their seeds, else the recipe.
  std::map<std::string, int> used;
  for (Group& group : groups) {
    for (const size_t i : group.runs) {
      std::string name = runs[i].name;
      if (group.runs.size() > 1)
        name = std::string(
            absl::StripSuffix(name, absl::StrCat("-", runs[i].key("seed"))));
      if (group.label.empty()) group.label = name;
      if (group.label != name)
        group.label = runs[i].key("algorithm.recipe", "?");
    }
    if (const int n = used[group.label]++; n > 0)
      absl::StrAppend(&group.label, " (", n + 1, ")");
  }
  StripCommonPart(groups);
  return groups;
}

}  // namespace atod::report
