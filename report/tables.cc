#include "report/tables.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/file.h"

namespace atod::report {
namespace {

Cell Text(std::string text) { return {std::move(text), "", false}; }
Cell Number(std::string text, std::string small = "") {
  return {std::move(text), std::move(small), true};
}
Cell None() { return Number("–"); }

std::string Percent(double x) { return absl::StrFormat("%.1f", 100 * x); }
std::string Interval(const Estimate& e) {
  return absl::StrFormat("[%.1f, %.1f]", 100 * e.low, 100 * e.high);
}
std::string SignedPoints(const Estimate& e) {
  return absl::StrFormat("%+.1f", 100 * e.value);
}
std::string SignedInterval(const Estimate& e) {
  return absl::StrFormat("[%+.1f, %+.1f]", 100 * e.low, 100 * e.high);
}
std::string Turns(double turns) { return absl::StrFormat("%.1f turns", turns); }

Cell PointCell(const std::optional<EvalPoint>& point, bool with_step) {
  if (!point.has_value()) return None();
  return Number(
      Percent(point->success.value),
      absl::StrCat(Interval(point->success), " ", Turns(point->turns),
                   with_step ? absl::StrCat(", step ", point->step) : ""));
}

// Success and turns of the members of a group.
struct Members {
  std::vector<double> success, turns;
  void Add(const std::optional<EvalPoint>& point) {
    if (!point) return;
    success.push_back(point->success.value);
    turns.push_back(point->turns);
  }
  // Their mean, the lowest and highest, and the mean length.
  Cell cell() const {
    if (success.empty()) return None();
    const auto [low, high] =
        std::minmax_element(success.begin(), success.end());
    return Number(Percent(Mean(success)),
                  absl::StrCat("(", Percent(*low), " – ", Percent(*high), ") ",
                               Turns(Mean(turns))));
  }
};

GameTable GamesOf(const Material& m, const Group& group,
                  std::vector<double> RunSummary::*which) {
  GameTable out;
  for (const size_t i : group.runs) out.push_back(m.summaries[i].*which);
  return out;
}

// The panel that all runs of a group were evaluated on, or empty.
std::string PanelOf(const Material& m, const Group& group) {
  const std::string& panel = m.summaries[group.runs[0]].panel;
  for (const size_t i : group.runs)
    if (m.summaries[i].panel != panel) return "";
  return panel;
}

// Whether all runs of both have recorded as many steps.
bool EqualSteps(const Material& m, const Group& a, const Group& b) {
  const uint32_t steps = m.summaries[a.runs[0]].steps;
  for (const Group* group : {&a, &b})
    for (const size_t i : group->runs)
      if (m.summaries[i].steps != steps) return false;
  return true;
}

// More groups than these are only paired with the first.
constexpr size_t kAllPairs = 4;

Table::Row RunRow(const RunSummary& s) {
  Table::Row row;
  row.cells = {Text(s.name),
               Text(s.recipe),
               Number(s.seed),
               Number(absl::StrCat(s.steps)),
               PointCell(s.before, false),
               PointCell(s.best, true),
               PointCell(s.last, false)};
  row.cells.push_back(s.mean_last
                          ? Number(Percent(s.mean_last->value),
                                   absl::StrCat(Interval(*s.mean_last), " ",
                                                Turns(s.mean_last_turns)))
                          : None());
  row.cells.push_back(s.rollout ? Number(Percent(s.rollout->value),
                                         absl::StrCat(Interval(*s.rollout), " ",
                                                      Turns(s.rollout_turns)))
                                : None());
  return row;
}

Table::Row GroupRow(const Material& m, const Group& group) {
  Members before, best, last, rollout;
  double mean_turns = 0;
  std::set<uint32_t> steps;
  for (const size_t i : group.runs) {
    const RunSummary& s = m.summaries[i];
    steps.insert(s.steps);
    before.Add(s.before);
    best.Add(s.best);
    last.Add(s.last);
    if (s.rollout) rollout.Add(EvalPoint{0, *s.rollout, s.rollout_turns});
    mean_turns += s.mean_last_turns / static_cast<double>(group.runs.size());
  }
  Table::Row row;
  row.cells = {Text(group.label),
               Text(m.summaries[group.runs[0]].recipe),
               Number(absl::StrCat(group.runs.size())),
               Number(steps.size() == 1 ? absl::StrCat(*steps.begin())
                                        : absl::StrCat(*steps.begin(), " – ",
                                                       *steps.rbegin())),
               before.cell(),
               best.cell(),
               last.cell()};
  if (PanelOf(m, group).empty()) {
    row.cells.push_back(None());
  } else {
    const GameTable games = GamesOf(m, group, &RunSummary::mean_games);
    const Estimate e =
        PairedDifference(games, {std::vector<double>(games[0].size(), 0.0)});
    row.cells.push_back(Number(
        Percent(e.value), absl::StrCat(Interval(e), " ", Turns(mean_turns))));
  }
  row.cells.push_back(rollout.cell());
  return row;
}

// "teacher-t1" is the teacher at T = 1; without the suffix T is 0.4.
constexpr char kWarm[] = "-t1";

std::string PolicyName(const std::string& policy) {
  if (absl::EndsWith(policy, kWarm))
    return PolicyName(std::string(absl::StripSuffix(policy, kWarm))) +
           ", T = 1";
  if (policy == "random") return "random admissible actions";
  if (policy == "untrained") return "untrained student";
  if (policy == "trained-last") return "trained student, last checkpoint";
  if (policy == "trained-best") return "trained student, best checkpoint";
  return policy;
}

int PolicyRank(const std::string& policy) {
  static constexpr const char* kOrder[] = {"random",       "untrained",
                                           "teacher",      "trained-last",
                                           "trained-best", "planner"};
  int rank = 0;
  for (const char* known : kOrder) {
    if (policy == known) return rank;
    ++rank;
  }
  return rank;
}

bool SameGames(const std::vector<Game>& a, const std::vector<Game>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](const Game& x, const Game& y) {
                                              return x.task == y.task;
                                            });
}

std::vector<double> Wins(const std::vector<Game>& games) {
  std::vector<double> out;
  for (const Game& g : games) out.push_back(g.success);
  return out;
}

// Games by "POLICY\nSPLIT", splits (unseen rooms first: the harder claim) and
// policies in the order of a table.
struct HeldOut {
  explicit HeldOut(const RunData& run) {
    std::set<std::string> split_set;
    std::set<std::tuple<int, std::string, std::string>> ranked;
    for (const NamedEval& eval : run.evals) {
      by_place[eval.policy + "\n" + eval.split] = &eval.games;
      split_set.insert(eval.split);
      const bool warm = absl::EndsWith(eval.policy, kWarm);
      const std::string plain(absl::StripSuffix(eval.policy, kWarm));
      ranked.emplace(PolicyRank(plain), plain, warm ? kWarm : "");
    }
    splits.assign(split_set.rbegin(), split_set.rend());
    for (const auto& [rank, plain, suffix] : ranked)
      policies.push_back(plain + suffix);
  }
  // Null where the policy did not play the split.
  const std::vector<Game>* Games(const std::string& policy,
                                 const std::string& split) const {
    const auto it = by_place.find(policy + "\n" + split);
    return it == by_place.end() ? nullptr : it->second;
  }
  std::map<std::string, const std::vector<Game>*> by_place;
  std::vector<std::string> splits, policies;
};

}  // namespace

Material MaterialOf(const std::vector<RunData>& runs) {
  Material out{&runs, {}, GroupRuns(runs)};
  for (const RunData& run : runs) out.summaries.push_back(Summarize(run));
  return out;
}

Table SuccessTable(const Material& m, SuccessRows rows) {
  size_t n = 0, steps = 0;
  for (const RunSummary& s : m.summaries) {
    n = std::max(n, s.mean_count);
    steps = std::max(steps, s.rollout_steps);
  }
  const RunData& first = (*m.runs)[0];
  const std::string eval = absl::StrCat(
      "success %, T = ", first.key("sampling.eval_temperature", "?"));
  const bool by_group = rows == SuccessRows::kGroups;
  Table table;
  table.head = {
      Text(by_group ? "group" : "run"),
      Text("recipe"),
      Number(by_group ? "seeds" : "seed"),
      Number("steps"),
      Number("before", eval),
      Number("best", eval),
      Number("last", eval),
      Number(absl::StrCat("mean of last ", n), eval),
      Number("training rollouts",
             absl::StrCat("success %, T = ",
                          first.key("sampling.train.temperature", "1"),
                          ", last ", steps, " steps"))};
  for (const Group& group : m.groups) {
    if (by_group && group.runs.size() > 1) {
      table.rows.push_back(GroupRow(m, group));
      continue;
    }
    for (const size_t i : group.runs) {
      table.rows.push_back(RunRow(m.summaries[i]));
      if (!by_group) continue;
      table.rows.back().cells[0] = Text(group.label);
      table.rows.back().cells[2] = Number("1");
    }
  }
  return table;
}

bool HasSeveralSeeds(const Material& m) {
  return m.groups.size() < m.runs->size();
}

std::string GroupNote() {
  return "A row of several seeds has their mean and (lowest – highest); its "
         "mean of last evaluations has a 95 % interval that resamples seeds "
         "and games. Other rows are as below.";
}

std::string SuccessNote(const Material& m) {
  std::set<std::string> splits;
  bool curriculum = false;
  for (const RunData& run : *m.runs) {
    splits.insert(run.key("env.train_split", "train"));
    curriculum |= run.key("algorithm.recipe") == "tcod";
  }
  std::string note = absl::StrCat(
      "[ ] are 95 % intervals: Wilson for one evaluation, bootstrap over games "
      "for a mean of evaluations, over steps for training rollouts. Behind "
      "them stands the mean length of an episode. Evaluation plays the same "
      "games each time; training rollouts are on the split ",
      absl::StrJoin(splits, ", "),
      curriculum ? ", and with TCOD cut short or begun by the teacher." : ".");
  const auto most =
      std::max_element(m.summaries.begin(), m.summaries.end(),
                       [](const RunSummary& a, const RunSummary& b) {
                         return a.best_bias < b.best_bias;
                       });
  if (most->best_bias > 0)
    absl::StrAppendFormat(
        &note,
        " The best of %d evaluations is too good by up to %.1f points: that is "
        "what the maximum gains if all were equal and independent.",
        most->evaluations, 100 * most->best_bias);
  return note;
}

std::string Incomparable(const Material& m) {
  std::set<uint32_t> steps;
  std::set<std::string> panels;
  for (const RunSummary& s : m.summaries) {
    steps.insert(s.steps);
    panels.insert(s.panel);
  }
  std::string out;
  if (steps.size() > 1)
    out += "The runs have recorded different numbers of steps. ";
  if (panels.size() > 1)
    out += "The runs were not evaluated on the same games. ";
  return out.empty() ? "" : out + "Rows are not comparable as they stand.";
}

std::string PairedNote(const Material& m) {
  return absl::StrCat(
      "Differences in points over the same games. [ ] are 95 % intervals, "
      "bootstrap over games, and over seeds where there are several; * where "
      "that leaves out 0. One seed says nothing about the spread between "
      "seeds.",
      m.groups.size() > kAllPairs
          ? absl::StrCat(" Only differences to the first group, ",
                         m.groups[0].label, ", are shown.")
          : "");
}

Table PairedTable(const Material& m) {
  Table table;
  table.head = {Text("difference"), Number("last", "points"),
                Number("best", "points"), Number("mean of last", "points")};
  const size_t count = m.groups.size();
  for (size_t a = 0; a < count; ++a) {
    for (size_t b = a + 1; b < count; ++b) {
      if (a > 0 && count > kAllPairs) break;
      const Group &left = m.groups[a], &right = m.groups[b];
      Table::Row row;
      row.cells.push_back(Text(absl::StrCat(left.label, " − ", right.label)));
      const std::string panel = PanelOf(m, left);
      if (panel.empty() || PanelOf(m, right) != panel) {
        row.cells.push_back(Number("other games: not paired"));
      } else {
        const bool equal = EqualSteps(m, left, right);
        for (const auto which :
             {&RunSummary::last_games, &RunSummary::best_games,
              &RunSummary::mean_games}) {
          const Estimate e = PairedDifference(GamesOf(m, left, which),
                                              GamesOf(m, right, which));
          const bool apart = equal && (e.low > 0 || e.high < 0);
          row.cells.push_back(Number(
              absl::StrCat(SignedPoints(e), apart ? " *" : ""),
              absl::StrCat(SignedInterval(e), equal ? "" : " unequal steps")));
        }
      }
      row.cells.resize(table.head.size(), None());
      table.rows.push_back(std::move(row));
    }
  }
  return table;
}

Table HeldOutTable(const RunData& run) {
  const HeldOut played(run);
  Table table;
  if (played.policies.empty()) return table;
  table.head = {Text("policy")};
  for (const std::string& split : played.splits) {
    table.head.push_back(Number(split, "success %"));
    table.head.push_back(Number("turns"));
    table.head.push_back(Number("− teacher", "points, paired"));
  }
  for (const std::string& policy : played.policies) {
    Table::Row row;
    row.cells.push_back(Text(PolicyName(policy)));
    for (const std::string& split : played.splits) {
      const std::vector<Game>* found = played.Games(policy, split);
      const std::vector<Game>* teacher = played.Games("teacher", split);
      if (found == nullptr) {
        row.cells.insert(row.cells.end(), {None(), None(), None()});
        continue;
      }
      const std::vector<Game>& games = *found;
      double wins = 0, turns = 0;
      for (const Game& g : games) {
        wins += g.success;
        turns += g.turns;
      }
      const double n = static_cast<double>(games.size());
      const Estimate e = Wilson(wins, n);
      row.cells.push_back(Number(Percent(e.value), Interval(e)));
      row.cells.push_back(Number(absl::StrFormat("%.1f", turns / n)));
      if (policy == "teacher" || teacher == nullptr ||
          !SameGames(games, *teacher)) {
        row.cells.push_back(None());
      } else {
        const Estimate gap = PairedDifference({Wins(games)}, {Wins(*teacher)});
        row.cells.push_back(Number(SignedPoints(gap), SignedInterval(gap)));
      }
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string HeldOutNote(const RunData& run) {
  std::set<size_t> counts;
  for (const NamedEval& eval : run.evals) counts.insert(eval.games.size());
  return absl::StrCat(
      counts.size() == 1
          ? absl::StrCat(*counts.begin(), " games a split and row. ")
          : "",
      "Models play at T = 0.4 where the row names no other. [ ] are 95 % "
      "intervals: Wilson; differences are to the teacher at T = 0.4, paired by "
      "game (bootstrap).");
}

Table HeldOutCategories(const RunData& run) {
  const HeldOut played(run);
  Table table;
  if (played.policies.empty()) return table;
  const std::string& split = played.splits[0];
  table.head = {Text("success % by task type, " + split)};
  struct Count {
    double wins = 0, games = 0;
  };
  std::map<std::string, std::map<std::string, Count>> counts;
  std::vector<std::string> columns;
  for (const std::string& policy : played.policies) {
    const std::vector<Game>* games = played.Games(policy, split);
    if (games == nullptr) continue;
    columns.push_back(policy);
    table.head.push_back(Number(policy));
    for (const Game& g : *games) {
      Count& c = counts[g.category][policy];
      c.wins += g.success;
      ++c.games;
    }
  }
  for (auto& [category, by_policy] : counts) {
    Table::Row row;
    row.cells.push_back(Text(category.empty() ? "(none)" : category));
    for (const std::string& policy : columns) {
      const Count& c = by_policy[policy];
      row.cells.push_back(c.games == 0 ? None()
                                       : Number(Percent(c.wins / c.games)));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string HeldOutComparisonNote() {
  return "Mean length of an episode behind the interval. The games are drawn "
         "apart from the panel's (of the panel's split some are in both). [ ] "
         "are 95 % intervals, bootstrap over games, and over seeds where there "
         "are several.";
}

Table HeldOutComparison(const Material& m) {
  struct Column {
    std::string split, suffix;  // of evals/POLICY[SUFFIX]-SPLIT.jsonl
  };
  // The games of a column as `run` played them, or null.
  const auto games_of = [](const RunData& run, const std::string& policy,
                           const Column& column) -> const std::vector<Game>* {
    for (const NamedEval& eval : run.evals) {
      if (eval.policy == policy + column.suffix && eval.split == column.split)
        return &eval.games;
    }
    return nullptr;
  };
  std::set<std::string> splits;
  for (const RunData& run : *m.runs)
    for (const NamedEval& eval : run.evals) splits.insert(eval.split);
  Table table;
  table.head = {Text("last checkpoint")};
  std::vector<Column> columns;
  for (auto split = splits.rbegin(); split != splits.rend(); ++split) {
    for (const char* suffix : {"", kWarm}) {
      columns.push_back({*split, suffix});
      table.head.push_back(Number(
          *split, absl::StrCat("success %, T = ", *suffix == 0 ? "0.4" : "1")));
    }
  }
  const auto add_row = [&](const std::string& name, const std::string& policy,
                           const std::vector<size_t>& runs, bool part) {
    Table::Row row{.cells = {Text(name)}, .part = part};
    bool any = false;
    for (const Column& column : columns) {
      GameTable wins;
      double turns = 0;
      const std::vector<Game>* first = nullptr;
      for (const size_t i : runs) {
        const std::vector<Game>* games = games_of((*m.runs)[i], policy, column);
        if (games == nullptr || games->empty()) continue;
        if (first == nullptr) first = games;
        if (!SameGames(*games, *first)) continue;
        wins.push_back(Wins(*games));
        for (const Game& g : *games) turns += g.turns / games->size();
      }
      if (wins.size() < runs.size()) {
        row.cells.push_back(None());
        continue;
      }
      any = true;
      const Estimate e =
          PairedDifference(wins, {std::vector<double>(wins[0].size(), 0.0)});
      row.cells.push_back(
          Number(Percent(e.value),
                 absl::StrCat(Interval(e), " ", Turns(turns / runs.size()))));
    }
    if (any) table.rows.push_back(std::move(row));
  };
  for (const char* policy : {"untrained", "teacher"})
    add_row(PolicyName(policy), policy, {0}, false);
  for (const Group& group : m.groups) {
    const bool several = group.runs.size() > 1;
    if (several) add_row(group.label, "trained-last", group.runs, false);
    for (const size_t i : group.runs)
      add_row((*m.runs)[i].name, "trained-last", {i}, several);
  }
  return table;
}

Table CategoryTable(const RunData& run, const RunSummary& summary) {
  Table table;
  if (!summary.last.has_value()) return table;
  struct Count {
    int wins = 0, games = 0;
  };
  std::map<std::string, std::map<uint32_t, Count>> counts;
  for (const PanelEval& eval : run.panel)
    for (const Game& g : eval.games) {
      Count& c = counts[g.category][eval.step];
      c.wins += g.success;
      ++c.games;
    }
  if (counts.size() < 2) return table;
  table.head = {Text("task type"), Number("games"),
                Number("before", "success %"), Number("best", "success %"),
                Number("last", "success %")};
  for (auto& [category, by_step] : counts) {
    const auto share = [&by_step = by_step](uint32_t step) {
      const auto it = by_step.find(step);
      if (it == by_step.end()) return None();
      return Number(
          Percent(static_cast<double>(it->second.wins) / it->second.games));
    };
    table.rows.push_back(
        {{Text(category.empty() ? "(none)" : category),
          Number(absl::StrCat(by_step[summary.last->step].games)),
          summary.before ? share(0) : None(), share(summary.best->step),
          share(summary.last->step)},
         false});
  }
  return table;
}

Table ConfigTable(const Material& m,
                  const std::map<std::string, std::string>& defaults) {
  Table table;
  table.head = {Text("key")};
  std::vector<const std::map<std::string, std::string>*> columns;
  for (const Group& group : m.groups) {
    columns.push_back(&(*m.runs)[group.runs[0]].config);
    table.head.push_back(Text(group.label));
  }
  if (columns.size() == 1 && !defaults.empty()) {
    columns.push_back(&defaults);
    table.head.push_back(Text("default"));
  }
  std::set<std::string> keys;
  for (const auto* column : columns)
    for (const auto& [key, value] : *column)
      if (!IsIncidental(key)) keys.insert(key);
  for (const std::string& key : keys) {
    Table::Row row;
    row.cells.push_back(Text(key));
    std::set<std::string> values;
    for (const auto* column : columns) {
      const auto it = column->find(key);
      const std::string value = it == column->end() ? "–" : it->second;
      values.insert(value);
      row.cells.push_back(Text(value.empty() ? "\"\"" : value));
    }
    if (values.size() > 1) table.rows.push_back(std::move(row));
  }
  return table;
}

Table SourceTable(const Material& m) {
  Table table;
  table.head = {Text("run"),          Text("folder"),
                Number("records"),    Number("evaluations", "after step 0"),
                Text("panel"),        Text("teacher's weights"),
                Text("configuration")};
  for (size_t i = 0; i < m.summaries.size(); ++i) {
    const RunData& run = (*m.runs)[i];
    const RunSummary& s = m.summaries[i];
    std::string config;
    for (const auto& [key, value] : run.config)
      absl::StrAppend(&config, key, "=", value, "\n");
    // As panel-*.jsonl names it, else what the games make.
    std::string panel = "–";
    if (!s.panel.empty()) {
      const std::string& hash = run.panel.back().games[0].panel;
      panel = absl::StrCat(s.games, " games, ",
                           hash.empty() ? s.panel : hash.substr(0, 12));
    }
    table.rows.push_back(
        {{Text(s.name), Text(run.dir), Number(absl::StrCat(run.steps.size())),
          Number(absl::StrCat(s.evaluations)), Text(panel),
          Text(run.teacher_hash.empty() ? "–" : run.teacher_hash.substr(0, 12)),
          Text(config.empty() ? "–" : HashHex(config).substr(0, 12))},
         false});
  }
  return table;
}

}  // namespace atod::report
