#include "report/report.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "report/chart.h"
#include "report/curves.h"
#include "report/episodes.h"
#include "report/health.h"
#include "report/html.h"
#include "report/left_out.h"
#include "report/tables.h"

namespace atod::report {
namespace {

// A page in the making: sections with their entries in the navigation.
class Builder {
 public:
  void Section(const std::string& id, const std::string& title,
               const std::string& html) {
    if (html.empty()) return;
    absl::StrAppend(&nav_, "<a href=\"#", id, "\">", Escape(title), "</a>");
    absl::StrAppend(&body_, "<section id=\"", id, "\"><h2>", Escape(title),
                    "</h2>\n", html, "</section>\n");
  }
  const std::string& nav() const { return nav_; }
  const std::string& body() const { return body_; }

 private:
  std::string nav_, body_;
};

std::string Note(const std::string& text) {
  return absl::StrCat("<p class=\"note\">", Escape(text), "</p>\n");
}

std::string Wrapped(const std::string& cards) {
  return cards.empty()
             ? ""
             : absl::StrCat("<div class=\"cards\">\n", cards, "</div>\n");
}

std::string Cards(const std::vector<Chart>& charts) {
  std::string out;
  for (const Chart& chart : charts) absl::StrAppend(&out, RenderChart(chart));
  return Wrapped(out);
}

const char* VerdictClass(Verdict verdict) {
  switch (verdict) {
    case Verdict::kGood:
      return "good";
    case Verdict::kNotice:
      return "notice";
    case Verdict::kBad:
      return "bad";
    case Verdict::kUnknown:
      return "unknown";
  }
  return "";
}

std::string VerdictBadge(Verdict verdict, const std::string& word) {
  static constexpr const char* kSigns[] = {"✓", "!", "✕", "–"};
  return absl::StrCat("<span class=\"verdict ", VerdictClass(verdict), "\"><i>",
                      kSigns[static_cast<int>(verdict)], "</i>", Escape(word),
                      "</span>");
}

std::string CheckBadge(const HealthCheck& check) {
  static constexpr const char* kWords[] = {"healthy", "look", "wrong", "n/a"};
  return VerdictBadge(check.verdict, kWords[static_cast<int>(check.verdict)]);
}

bool WorthSaying(const HealthCheck& check) {
  return check.verdict == Verdict::kBad || check.verdict == Verdict::kNotice;
}

// One run: a row a check.
std::string HealthOfOne(const RunData& run) {
  std::string out =
      "<div class=\"scroll short\"><table><thead><tr><th>signal</th>"
      "<th>verdict</th><th>what was seen</th></tr></thead><tbody>\n";
  for (const HealthCheck& check : CheckHealth(run))
    absl::StrAppend(&out, "<tr><td>", Escape(check.name), "</td><td>",
                    CheckBadge(check), "</td><td class=\"text\">",
                    Escape(check.finding), "</td></tr>\n");
  return out + "</tbody></table></div>\n";
}

// Several: a row a run, with what is not healthy spelt out.
std::string HealthOfMany(const std::vector<RunData>& runs) {
  std::string out =
      "<div class=\"scroll\"><table><thead><tr><th>run</th>"
      "<th>verdict</th><th>what was seen</th></tr></thead><tbody>\n";
  for (const RunData& run : runs) {
    HealthCheck worst{"", Verdict::kGood};
    std::string findings;
    for (const HealthCheck& check : CheckHealth(run)) {
      if (!WorthSaying(check)) continue;
      worst.verdict = std::max(worst.verdict, check.verdict);
      absl::StrAppend(&findings, findings.empty() ? "" : "<br>",
                      CheckBadge(check), " ", Escape(check.name), ": ",
                      Escape(check.finding));
    }
    absl::StrAppend(&out, "<tr><td>", Escape(run.name), "</td><td>",
                    CheckBadge(worst), "</td><td class=\"text\">", findings,
                    "</td></tr>\n");
  }
  return out + "</tbody></table></div>\n";
}

std::string Health(const std::vector<RunData>& runs) {
  return runs.size() == 1 ? HealthOfOne(runs[0]) : HealthOfMany(runs);
}

std::string Tile(const std::string& value, const std::string& label) {
  return absl::StrCat("<div class=\"tile\"><b>", value, "</b><span>",
                      Escape(label), "</span></div>");
}

std::string Tiles(const RunData& run, const RunSummary& s) {
  std::string out = "<div class=\"tiles\">";
  const auto percent = [](double x) {
    return absl::StrFormat("%.1f %%", 100 * x);
  };
  if (s.best) {
    absl::StrAppend(
        &out,
        Tile(percent(s.best->success.value),
             absl::StrFormat("best on the panel, step %d, %.1f turns",
                             s.best->step, s.best->turns)),
        Tile(percent(s.mean_last->value),
             absl::StrFormat("mean of the last %d evaluations [%.1f, %.1f]",
                             s.mean_count, 100 * s.mean_last->low,
                             100 * s.mean_last->high)));
  }
  if (s.rollout)
    absl::StrAppend(&out, Tile(percent(s.rollout->value),
                               absl::StrFormat("training rollouts, last %d "
                                               "steps",
                                               s.rollout_steps)));
  int wrong = 0, look = 0, applied = 0;
  for (const HealthCheck& check : CheckHealth(run)) {
    wrong += check.verdict == Verdict::kBad;
    look += check.verdict == Verdict::kNotice;
    applied += check.verdict != Verdict::kUnknown;
  }
  absl::StrAppend(
      &out, Tile(wrong > 0  ? VerdictBadge(Verdict::kBad,
                                           absl::StrCat(wrong, " wrong"))
                 : look > 0 ? VerdictBadge(Verdict::kNotice,
                                           absl::StrCat(look, " to look at"))
                            : VerdictBadge(Verdict::kGood, "healthy"),
                 absl::StrCat("of ", applied, " health signals")));
  return absl::StrCat(out, "</div>\n");
}

// The table of the groups first where they have several runs: those are the
// rows to cite.
std::string Success(const Material& m) {
  std::string out;
  if (HasSeveralSeeds(m))
    absl::StrAppend(&out, ToHtml(SuccessTable(m, SuccessRows::kGroups)),
                    Note(GroupNote()), "<h3>Run by run</h3>\n");
  absl::StrAppend(&out, ToHtml(SuccessTable(m, SuccessRows::kRuns)));
  if (const std::string warning = Incomparable(m); !warning.empty())
    absl::StrAppend(&out, "<p>", VerdictBadge(Verdict::kNotice, warning),
                    "</p>\n");
  for (const std::string& line : LeftOutOf(*m.runs))
    absl::StrAppend(&out, "<p>", VerdictBadge(Verdict::kNotice, "left out"),
                    " ", Escape(line), "</p>\n");
  return out + Note(SuccessNote(m));
}

// Whether any cell differs from the first.
bool Varies(const Heat& heat) {
  std::optional<double> first;
  for (const auto& column : heat.cells)
    for (const auto& cell : column) {
      if (!cell.has_value()) continue;
      if (!first.has_value()) first = cell;
      if (std::abs(*cell - *first) > 1e-9) return true;
    }
  return false;
}

// The parts of one run; ids carry `prefix`.
void AddRun(const RunData& run, const RunSummary& summary,
            const std::string& prefix, const std::string& of, Builder& page) {
  const RunCurves curves = CurvesOf(run);
  const Table categories = CategoryTable(run, summary);
  page.Section(prefix + "learning", "Learning" + of,
               Cards(curves.learning) +
                   (categories.rows.empty() ? "" : ToHtml(categories)));
  page.Section(prefix + "signals", "Signals" + of, Cards(curves.signals));
  std::string cards;
  for (const Chart& chart : curves.weights)
    absl::StrAppend(&cards, RenderChart(chart));
  for (const Heat& heat : TurnHeats(run))
    if (Varies(heat)) absl::StrAppend(&cards, RenderHeat(heat));
  std::string weights = Wrapped(cards);
  if (!run.diagnoses.empty()) {
    absl::StrAppend(&weights, "<h3>By turn, on games played for it</h3>\n");
    std::vector<std::string> lines;
    for (const DiagnosisFile& file : run.diagnoses)
      lines.push_back(absl::StrCat(file.name, ": ", file.description));
    absl::StrAppend(&weights,
                    Note(absl::StrCat(
                        "atod diagnose; bands are 95 % intervals of the mean. ",
                        absl::StrJoin(lines, ". "), ".")),
                    Cards(DiagnosisCharts(run.diagnoses)));
  }
  page.Section(prefix + "turns", "Turn weights (T-DUR)" + of, weights);
  page.Section(prefix + "policy", "Policy and optimiser" + of,
               Cards(curves.policy));
  page.Section(prefix + "episodes", "Single trajectories" + of,
               RenderEpisodes(run));
  const Table held_out = HeldOutTable(run);
  if (!held_out.rows.empty())
    page.Section(prefix + "held-out", "Held-out games" + of,
                 ToHtml(held_out) + Note(HeldOutNote(run)) +
                     ToHtml(HeldOutCategories(run)));
}

void AddComparison(const std::vector<RunData>& runs, const Material& m,
                   Builder& page) {
  const RunCurves curves = CompareCurves(runs, m.groups);
  page.Section("learning", "Learning", Cards(curves.learning));
  page.Section("signals", "Signals", Cards(curves.signals));
  std::string weights = Cards(curves.weights);
  std::string heats;
  for (const Group& group : m.groups) {
    const RunData& run = runs[group.runs[0]];
    std::vector<Heat> all = TurnHeats(run);
    // A recipe without weights, or with w = 1, has nothing to show here.
    if (all.empty() || !Varies(all[0])) continue;
    all[0].title = absl::StrCat("w: ", run.name);
    absl::StrAppend(&heats, RenderHeat(all[0]));
  }
  absl::StrAppend(&weights, Wrapped(heats));
  page.Section("turns", "Turn weights", weights);
  page.Section("policy", "Policy and optimiser", Cards(curves.policy));
  const Table held_out = HeldOutComparison(m);
  if (!held_out.rows.empty())
    page.Section("held-out", "Held-out games",
                 ToHtml(held_out) + Note(HeldOutComparisonNote()));
}

}  // namespace

std::string RenderReport(const std::vector<RunData>& runs,
                         const ReportOptions& options) {
  const Material m = MaterialOf(runs);
  const bool one = runs.size() == 1;
  Builder page;
  page.Section("success", "Success", Success(m));
  if (options.compare && m.groups.size() > 1) {
    page.Section("paired", "Paired differences",
                 ToHtml(PairedTable(m)) + Note(PairedNote(m)));
  }
  page.Section("health", "Health", Health(runs));
  if (options.compare && !one) {
    AddComparison(runs, m, page);
  } else {
    for (size_t i = 0; i < runs.size(); ++i)
      AddRun(runs[i], m.summaries[i], one ? "" : absl::StrCat("r", i, "-"),
             one ? "" : absl::StrCat(": ", runs[i].name), page);
  }
  const Table config = ConfigTable(m, options.defaults);
  if (!config.rows.empty())
    page.Section(
        "configuration", "Configuration",
        absl::StrCat("<div class=\"diff\">", ToHtml(config), "</div>",
                     Note(m.groups.size() > 1
                              ? "Keys whose values differ; names, seeds, "
                                "addresses and threads left out."
                              : "Keys whose values differ from the "
                                "default; names, seeds, addresses and "
                                "threads left out.")));
  page.Section("sources", "Sources", ToHtml(SourceTable(m)));

  std::vector<std::string> names;
  for (const Group& group : m.groups) names.push_back(group.label);
  const std::string title =
      one ? runs[0].name
          : absl::StrCat(runs.size(), " runs: ", absl::StrJoin(names, ", "));
  std::string body = absl::StrCat("<h1>", Escape(title), "</h1>\n");
  if (one) {
    const RunData& run = runs[0];
    absl::StrAppend(
        &body, "<p class=\"lead\">",
        Escape(absl::StrFormat(
            "ATOD run, recipe %s, profile %s, seed %s: %d of %s steps "
            "recorded, "
            "%s tasks x %s rollouts a step.",
            run.key("algorithm.recipe", "?"), run.key("algorithm.profile", "?"),
            run.key("seed", "?"), run.steps.back().step, run.key("steps", "?"),
            run.key("algorithm.tasks_per_step", "?"),
            run.key("algorithm.group_size", "?"))),
        "</p>\n", Tiles(run, m.summaries[0]));
  } else {
    absl::StrAppend(&body, "<p class=\"lead\">ATOD runs",
                    options.compare ? " side by side" : "", ".</p>\n");
  }
  absl::StrAppend(&body, "<nav>", page.nav(), "</nav>\n", page.body(),
                  "<footer>Made by <code>atod report</code> from the files of "
                  "the run folders alone; it loads nothing from elsewhere."
                  "</footer>\n");
  return Page(title, body);
}

namespace {

// What one run has beyond its row: the held-out games, where deploy/up.sh
// played them, what the run took, and what the games are.
std::string MarkdownOfOne(const RunData& run) {
  std::string out;
  if (const Table held_out = HeldOutTable(run); !held_out.rows.empty())
    absl::StrAppend(&out, "\n## Held-out games\n\n", ToMarkdown(held_out), "\n",
                    HeldOutNote(run), "\n\n",
                    ToMarkdown(HeldOutCategories(run)));
  double spent = 0;
  int trained = 0;
  for (const StepRow& row : run.steps) {
    const double step = row.value("timing/step_seconds").value_or(0);
    spent += step + row.value("timing/eval_seconds").value_or(0);
    trained += step > 0;
  }
  if (run.cores > 0)
    absl::StrAppendFormat(
        &out,
        "\nOn %.0f cores: %.0f s for games, demonstrations, tokenizer and SFT "
        "of teacher and student (as measured when they were made), %.0f s for "
        "%d steps of training and their evaluations (the learner's clock).\n",
        run.cores, run.prepare_seconds, spent, trained);
  if (!run.games.empty())
    absl::StrAppend(&out, "\n## The games\n\n```\n",
                    absl::StripTrailingAsciiWhitespace(run.games), "\n```\n");
  return out;
}

}  // namespace

std::string RenderMarkdown(const std::vector<RunData>& runs,
                           const std::string& svg) {
  const Material m = MaterialOf(runs);
  std::string out;
  if (runs.size() == 1)
    out = absl::StrCat(
        "# Run ", runs[0].name, "\n\nMade by `atod report ", runs[0].dir,
        " --markdown` from the run's files.\n\n![learning curves](", svg,
        ")\n\n");
  if (HasSeveralSeeds(m))
    out = absl::StrCat(ToMarkdown(SuccessTable(m, SuccessRows::kGroups)), "\n",
                       GroupNote(), "\n\n### Run by run\n\n");
  absl::StrAppend(&out, ToMarkdown(SuccessTable(m, SuccessRows::kRuns)), "\n");
  if (const std::string warning = Incomparable(m); !warning.empty())
    absl::StrAppend(&out, "**", warning, "**\n\n");
  for (const std::string& line : LeftOutOf(runs))
    absl::StrAppend(&out, "**Left out.** ", line, "\n\n");
  absl::StrAppend(&out, SuccessNote(m), "\n");
  if (m.groups.size() > 1)
    absl::StrAppend(&out, "\n### Paired differences\n\n",
                    ToMarkdown(PairedTable(m)), "\n", PairedNote(m), "\n");
  if (const Table held_out = HeldOutComparison(m);
      runs.size() > 1 && !held_out.rows.empty())
    absl::StrAppend(&out, "\n### Held-out games\n\n", ToMarkdown(held_out),
                    "\n", HeldOutComparisonNote(), "\n");
  if (runs.size() == 1) absl::StrAppend(&out, MarkdownOfOne(runs[0]));
  return out;
}

std::string RenderSvg(const std::vector<RunData>& runs) {
  return StandaloneSvg((runs.size() == 1 ? CurvesOf(runs[0])
                                         : CompareCurves(runs, GroupRuns(runs)))
                           .learning[0]);
}

}  // namespace atod::report
