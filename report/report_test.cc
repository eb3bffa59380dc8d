#include "report/report.h"

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <regex>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/run/run_folder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "report/chart.h"
#include "report/html.h"
#include "report/left_out.h"
#include "report/summary.h"
#include "services/learner/trajectory_store.h"

namespace atod::report {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr char kHostile[] = "<script>alert('x')</script>&\"";

// A run folder as the learner writes it.
class RunFolder {
 public:
  RunFolder(const std::string& name, const std::string& recipe, int seed)
      : dir_(fs::path(testing::TempDir()) /
             absl::StrCat("report_test-", getpid(), "-", name)) {
    fs::remove_all(dir_);
    fs::create_directories(dir_ / "evals");
    Write(
        "config.resolved.yaml",
        absl::StrCat("name: ", name, "\nseed: ", seed,
                     "\nsteps: 20\nteachers:\n  - name: teacher\n    path: "
                     "t\nalgorithm:\n  recipe: ",
                     recipe, "\n  profile: default\neval:\n  mean_last: 2\n"));
  }
  ~RunFolder() { fs::remove_all(dir_); }

  void Write(const std::string& file, const std::string& text) {
    fs::create_directories((dir_ / file).parent_path());
    std::ofstream(dir_ / file) << text;
  }

  void Metrics(int steps) {
    std::string text;
    for (int s = 0; s <= steps; ++s)
      absl::StrAppendFormat(
          &text,
          "{\"step\":%d,\"hybrid/kl_coef\":%g,\"hybrid/rl_coef\":%g,"
          "\"episode/success_rate\":%g,\"episode/length\":5,\"tdur/"
          "weight_mean\":0.5,\"hybrid/opd_rl_ratio\":%g,\"nan\":null}\n",
          s, 1 - 0.01 * s, 1 + 0.01 * s, 0.02 * s, 2.0 / (s + 1));
    Write("metrics.jsonl", text);
  }

  // The first `wins` of 10 games are won.
  void Panel(int step, int wins, const std::string& task = "game") {
    std::string text;
    for (int i = 0; i < 10; ++i)
      absl::StrAppendFormat(
          &text,
          "{\"step\":%d,\"index\":%d,\"task\":\"%s-%d\","
          "\"category\":\"%s\",\"success\":%s,\"turns\":%d}\n",
          step, i, task, i, i % 2 ? "odd" : "even", i < wins ? "true" : "false",
          i < wins ? 4 : 20);
    Write(absl::StrFormat("evals/panel-%06d.jsonl", step), text);
  }

  // The first `wins` of 10 games that `policy` played beside training.
  void HeldOut(const std::string& policy, int wins) {
    std::string text;
    for (int i = 0; i < 10; ++i)
      absl::StrAppendFormat(
          &text, "{\"task_id\":\"h-%d\",\"success\":%s,\"length\":7}\n", i,
          i < wins ? "true" : "false");
    Write(absl::StrCat("evals/", policy, "-unseen.jsonl"), text);
  }

  // `count` episodes of `turns` turns; even ones are solved.
  void Step(uint32_t step, uint32_t count, uint32_t turns) {
    const auto store =
        learner::TrajectoryStore::Open(atod::RunFolder(dir_.string()).spool());
    ASSERT_TRUE(store.ok()) << store.status();
    std::string side;
    for (uint32_t i = 0; i < count; ++i) {
      v1::Trajectory t;
      t.set_purpose(v1::TRAIN);
      t.mutable_id()->set_step(step);
      t.mutable_id()->set_group(i);
      t.mutable_task()->set_task_id(kHostile);
      t.mutable_task()->set_category(kHostile);
      t.mutable_outcome()->set_success(i % 2 == 0);
      absl::StrAppendFormat(&side,
                            "{\"id\":\"%d/%d/0\",\"grpo_advantage\":0.5,"
                            "\"turns\":[",
                            step, i);
      for (uint32_t k = 0; k < turns; ++k) {
        v1::Turn& turn = *t.add_turns();
        turn.set_index(k);
        turn.set_trainable(true);
        turn.set_observation(absl::StrCat(kHostile, " seen ", k));
        turn.set_action_text(absl::StrCat(kHostile, " said ", k));
        absl::StrAppendFormat(&side,
                              "%s{\"index\":%d,\"d\":%g,\"h\":0.1,\"w\":0.25,"
                              "\"advantages\":[0.5,-1.25]}",
                              k ? "," : "", k, 0.01 * k * (i + 1));
      }
      side += "]}\n";
      ASSERT_TRUE((*store)->Append(t).ok());
    }
    ASSERT_TRUE((*store)->Sync().ok());
    const std::string path =
        learner::AdvantageFile(atod::RunFolder(dir_.string()).spool(), step);
    std::ofstream(path) << side;
  }

  std::string path() const { return dir_.string(); }
  RunData Read() const {
    absl::StatusOr<RunData> run = ReadRun(path());
    EXPECT_TRUE(run.ok()) << run.status();
    return run.ok() ? *std::move(run) : RunData{};
  }

 private:
  const fs::path dir_;
};

TEST(Report, ReadsWhatALearnerWrites) {
  RunFolder folder("read", "atod", 3);
  folder.Metrics(20);
  folder.Panel(0, 1);
  folder.Panel(10, 6);
  folder.Panel(20, 5);
  folder.Write("timings.jsonl", "{\"step\":3,\"timing/step_seconds\":7}\n");
  folder.Step(1, 2, 3);
  const RunData run = folder.Read();
  EXPECT_EQ(run.name, "read");
  EXPECT_EQ(run.key("teachers.0.path"), "t");
  EXPECT_EQ(run.steps.size(), 21u);
  EXPECT_EQ(run.steps[3].value("timing/step_seconds"), 7);
  EXPECT_EQ(run.steps[3].value("nan"), std::nullopt);
  ASSERT_EQ(run.columns.size(), 1u);
  ASSERT_EQ(run.columns[0].turns.size(), 3u);
  EXPECT_EQ(run.columns[0].turns[2].samples, 2);
  EXPECT_NEAR(run.columns[0].turns[2].d, 0.03, 1e-12);
  // One unsolved and one solved trajectory.
  ASSERT_EQ(run.trajectories.size(), 2u);
  EXPECT_FALSE(run.trajectories[0].success);
  EXPECT_TRUE(run.trajectories[1].success);
  EXPECT_DOUBLE_EQ(run.trajectories[0].turns[1].tokens[1].advantage, -1.25);
}

TEST(Report, CountsLinesOfAStepThatHasOne) {
  RunFolder folder("again", "atod", 0);
  folder.Write("metrics.jsonl", "{\"step\":1}\n{\"step\":2}\n{\"step\":2}\n");
  folder.Write("timings.jsonl", "{\"step\":1}\n{\"step\":1}\n");
  const RunData run = folder.Read();
  EXPECT_EQ(run.steps.size(), 2u);
  EXPECT_EQ(run.repeated_steps, 1);
}

TEST(Report, TableOneTakesTheBestTheLastAndTheMeanWithTheirLengths) {
  RunFolder folder("table", "atod", 3);
  folder.Metrics(20);
  folder.Panel(0, 1);
  folder.Panel(10, 6);
  folder.Panel(20, 5);
  const RunSummary s = Summarize(folder.Read());
  EXPECT_DOUBLE_EQ(s.before->success.value, 0.1);
  EXPECT_DOUBLE_EQ(s.best->success.value, 0.6);
  EXPECT_EQ(s.best->step, 10u);
  EXPECT_DOUBLE_EQ(s.best->turns, 6 * 0.4 + 4 * 2);
  EXPECT_DOUBLE_EQ(s.last->success.value, 0.5);
  EXPECT_EQ(s.mean_count, 2u);
  EXPECT_NEAR(s.mean_last->value, 0.55, 1e-12);
  EXPECT_LT(s.mean_last->low, 0.4);
  // Steps 11 to 20 of the training rollouts.
  EXPECT_NEAR(s.rollout->value, 0.31, 1e-12);
  EXPECT_GT(s.best_bias, 0);
}

TEST(Report, GroupsRunsThatDifferInTheSeedAlone) {
  RunFolder a("x-0", "atod", 0), b("x-1", "atod", 1), c("y-0", "grpo", 0);
  std::vector<RunData> runs;
  for (RunFolder* f : {&a, &b, &c}) {
    f->Metrics(20);
    runs.push_back(f->Read());
  }
  const std::vector<Group> groups = GroupRuns(runs);
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].label, "x");
  EXPECT_THAT(groups[0].runs, ElementsAre(0, 1));
  EXPECT_EQ(groups[1].label, "y-0");
}

TEST(Report, NamesOfGroupsLeaveOutWhatAllBeginWith) {
  RunFolder a("mini-atod-0", "atod", 0), b("mini-w-one-0", "atod_one", 0);
  std::vector<RunData> runs;
  for (RunFolder* f : {&a, &b}) {
    f->Metrics(20);
    runs.push_back(f->Read());
  }
  std::vector<Group> groups = GroupRuns(runs);
  EXPECT_EQ(groups[0].label, "atod-0");
  EXPECT_EQ(groups[1].label, "w-one-0");
  runs.pop_back();
  EXPECT_EQ(GroupRuns(runs)[0].label, "mini-atod-0");
}

TEST(Report, ComparesOnlyRunsOfTheSamePanel) {
  RunFolder a("a", "atod", 0), b("b", "grpo", 0), c("c", "opd", 0);
  std::vector<RunData> runs;
  for (RunFolder* f : {&a, &b, &c}) {
    f->Metrics(20);
    f->Panel(20, f == &a ? 8 : 2, f == &c ? "other" : "game");
    runs.push_back(f->Read());
  }
  const std::string table = RenderMarkdown(runs);
  EXPECT_THAT(table, HasSubstr("| a − b | +60.0 * ["));
  EXPECT_THAT(table, HasSubstr("| a − c | other games: not paired |"));
  const std::string html = RenderReport(runs, {.compare = true});
  EXPECT_THAT(html, HasSubstr("Paired differences"));
  EXPECT_THAT(html, HasSubstr("algorithm.recipe"));
  EXPECT_THAT(RenderSvg(runs), Not(HasSubstr("nan")));
}

TEST(Report, HeldOutGamesOfSeveralRunsAtBothTemperatures) {
  RunFolder a("h-0", "atod", 0), b("h-1", "atod", 1), c("i-0", "grpo", 0);
  std::vector<RunData> runs;
  for (RunFolder* f : {&a, &b, &c}) {
    f->Metrics(20);
    f->HeldOut("teacher", 6);
    f->HeldOut("trained-last", f == &b ? 9 : 7);
    if (f != &c) f->HeldOut("trained-last-t1", 4);
    runs.push_back(f->Read());
  }
  const std::string table = RenderMarkdown(runs);
  EXPECT_THAT(
      table,
      HasSubstr("| unseen (success %, T = 0.4) | unseen (success %, T = 1) |"));
  EXPECT_THAT(table, HasSubstr("| teacher | 60.0 ["));
  EXPECT_TRUE(std::regex_search(
      table, std::regex("\n\\| h \\| 80\\.0 \\[[0-9., ]+\\] 7\\.0 turns "
                        "\\| 40\\.0 \\[")));
  EXPECT_TRUE(std::regex_search(
      table, std::regex("\n\\| i-0 \\| 70\\.0 \\[[0-9., ]+\\] 7\\.0 turns "
                        "\\| – \\|")));
  EXPECT_THAT(RenderReport(runs, {.compare = true}),
              HasSubstr("Held-out games"));
}

TEST(Report, HeldOutPoliciesAtTOneFollowThoseAtTheUsualT) {
  RunFolder folder("warm", "atod", 0);
  folder.Metrics(20);
  for (const char* policy : {"teacher", "teacher-t1", "untrained",
                             "untrained-t1", "trained-last-t1"})
    folder.HeldOut(policy, 5);
  const std::string html = RenderReport({folder.Read()}, {});
  EXPECT_TRUE(std::regex_search(
      html, std::regex("<td>untrained student</td>[^]*<td>untrained student, T "
                       "= 1</td>[^]*<td>teacher</td>[^]*<td>teacher, T = "
                       "1</td>[^]*<td>trained student, last checkpoint, T = "
                       "1</td>")));
  EXPECT_THAT(html, HasSubstr("at T = 0.4 where the row names no other"));
}

TEST(Report, GroupsComeBeforeTheirRuns) {
  RunFolder a("x-0", "atod", 0), b("x-1", "atod", 1), c("y-0", "tcod", 0);
  std::vector<RunData> runs;
  for (RunFolder* f : {&a, &b, &c}) {
    f->Metrics(20);
    f->Panel(20, f == &b ? 8 : 6);
    runs.push_back(f->Read());
  }
  const std::string table = RenderMarkdown(runs);
  EXPECT_THAT(table, HasSubstr("| group | recipe | seeds | steps | before "
                               "(success %, T = ?)"));
  EXPECT_THAT(table, HasSubstr("\n| x | atod | 2 | 20 | – | 70.0 (60.0 – 80.0) "
                               "8.8 turns |"));
  EXPECT_THAT(table, HasSubstr("\n| y-0 | tcod | 1 | 20 |"));
  EXPECT_LT(table.find("\n| y-0 | tcod | 1 |"), table.find("### Run by run"));
  EXPECT_LT(table.find("### Run by run"), table.find("\n| x-0 | atod | 0 |"));
  EXPECT_THAT(table, HasSubstr("10.4 turns, step 20 |"));
  EXPECT_THAT(table, HasSubstr("[ ] are 95 % intervals"));
  EXPECT_THAT(table, HasSubstr("A row of several seeds has their mean"));
  EXPECT_THAT(table, HasSubstr("split train, and with TCOD cut short"));
  EXPECT_THAT(table, HasSubstr("* where that leaves out 0"));
  const std::string html = RenderReport(runs, {.compare = true});
  EXPECT_THAT(html, HasSubstr("<h3>Run by run</h3>"));
  EXPECT_THAT(html, HasSubstr("10.4&nbsp;turns,&nbsp;step&nbsp;20"));
  // One run a group needs one table.
  runs.erase(runs.begin() + 1);
  EXPECT_THAT(RenderMarkdown(runs), Not(HasSubstr("Run by run")));
}

TEST(Report, RunsOfUnequalStepsGetNoVerdict) {
  RunFolder a("a", "atod", 0), b("b", "grpo", 0);
  std::vector<RunData> runs;
  for (RunFolder* f : {&a, &b}) {
    f->Metrics(f == &a ? 20 : 19);
    f->Panel(15, f == &a ? 9 : 1);
    runs.push_back(f->Read());
  }
  const std::string table = RenderMarkdown(runs);
  EXPECT_TRUE(std::regex_search(
      table, std::regex("\\| a − b \\| \\+80\\.0 \\[[^|]+\\] unequal steps "
                        "\\|")));
  EXPECT_THAT(table, Not(HasSubstr("+80.0 *")));
  EXPECT_THAT(table, HasSubstr("**The runs have recorded different numbers of "
                               "steps. Rows are not comparable"));
}

TEST(Report, OfManyGroupsOnlyDifferencesToTheFirstAreShownAndItSaysSo) {
  std::vector<RunData> runs;
  for (const char* name : {"a", "b", "c", "d", "e"}) {
    RunFolder folder(name, name, 0);
    folder.Metrics(20);
    folder.Panel(20, 5);
    runs.push_back(folder.Read());
  }
  const std::string note = "Only differences to the first group, a, are shown";
  EXPECT_THAT(RenderMarkdown(runs), HasSubstr(note));
  EXPECT_THAT(RenderReport(runs, {.compare = true}), HasSubstr(note));
  EXPECT_THAT(RenderMarkdown(runs), Not(HasSubstr("| b − c |")));
  runs.pop_back();
  EXPECT_THAT(RenderMarkdown(runs), Not(HasSubstr(note)));
  EXPECT_THAT(RenderMarkdown(runs), HasSubstr("| b − c |"));
}

TEST(Report, WithoutATeacherNothingIsSaidOfItsScores) {
  RunFolder with("with", "atod", 0), without("without", "sdar", 0);
  for (RunFolder* f : {&with, &without}) {
    f->Metrics(20);
    f->Step(1, 2, 3);
  }
  without.Write("metrics.jsonl",
                "{\"step\":1,\"hybrid/opd_rl_ratio\":0,\"actor/sdar_loss\":0.1,"
                "\"tdur/uncertainty\":0.2}\n"
                "{\"step\":2,\"hybrid/opd_rl_ratio\":0}\n");
  RunData run = without.Read();
  ASSERT_TRUE(run.has_teacher());  // by d
  for (TurnColumn& column : run.columns)
    for (TurnCell& cell : column.turns) cell.d = 0;
  ASSERT_FALSE(run.has_teacher());
  const std::string bare = RenderReport({run}, {});
  const std::string full = RenderReport({with.Read()}, {});
  for (const char* part : {"<th class=\"n\">d</th>", "<th class=\"n\">w</th>",
                           "Teacher&#39;s signal over the reward"}) {
    EXPECT_THAT(full, HasSubstr(part));
    EXPECT_THAT(bare, Not(HasSubstr(part)));
  }
  EXPECT_THAT(bare, Not(HasSubstr("Teacher gap")));
  EXPECT_THAT(bare, HasSubstr("SDAR loss"));
  EXPECT_THAT(full, Not(HasSubstr("SDAR loss")));
  // The mean of 0.5 and -1.25.
  EXPECT_THAT(bare, HasSubstr("<th class=\"n\">mean A</th>"));
  EXPECT_THAT(bare, HasSubstr("<td class=\"n\">-0.375</td>"));
}

TEST(Report, NamesThePanelAsItsGamesDo) {
  RunFolder folder("panel", "atod", 0);
  folder.Metrics(20);
  folder.Panel(20, 5);
  RunData run = folder.Read();
  EXPECT_THAT(RenderReport({run}, {}),
              HasSubstr("10 games, " + Summarize(run).panel));
  for (Game& game : run.panel[0].games) game.panel = "0123456789abcdef";
  EXPECT_THAT(RenderReport({run}, {}), HasSubstr("10 games, 0123456789ab<"));
}

TEST(Report, DiagnosesBeforeTrainingComeFirst) {
  RunFolder folder("diagnoses", "atod", 0);
  folder.Metrics(20);
  for (const char* name : {"after", "before", "untrained-seen"})
    folder.Write(absl::StrCat("diagnose/", name, ".jsonl"),
                 "{\"turn\":0,\"samples\":1}\n");
  const RunData run = folder.Read();
  ASSERT_EQ(run.diagnoses.size(), 3u);
  EXPECT_EQ(run.diagnoses[0].name, "before");
  EXPECT_EQ(run.diagnoses[1].name, "untrained-seen");
  EXPECT_EQ(run.diagnoses[2].name, "after");
}

TEST(Report, NothingFromARunIsMarkupAndNothingIsLoaded) {
  RunFolder folder("hostile", kHostile, 0);
  folder.Write("config.resolved.yaml",
               absl::StrCat("name: ", kHostile,
                            "\nalgorithm:\n  recipe: ", kHostile, "\n"));
  folder.Metrics(20);
  folder.Panel(20, 5);
  folder.Step(1, 2, 3);
  folder.Write("diagnose/<b>.jsonl",
               absl::StrCat("{\"model\":\"<i>\"}\n{\"turn\":0,\"samples\":1,"
                            "\"d\":1,\"h\":1,\"w\":1}\n"));
  const std::string html = RenderReport({folder.Read()}, {});
  EXPECT_THAT(html, Not(HasSubstr("<script>alert")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert"));
  EXPECT_THAT(html, Not(HasSubstr("<b>.")));
  EXPECT_THAT(html, Not(HasSubstr("<i>:")));
  // The one address is a name space.
  EXPECT_FALSE(std::regex_search(html, std::regex("(src|href)=\"[^#]")));
  EXPECT_FALSE(std::regex_search(html, std::regex("@import|url\\(")));
}

TEST(Report, HundredAndFiftyStepsOfFiftyTurnsStayBelowFiveMegabytes) {
  RunFolder folder("large", "atod", 0);
  folder.Metrics(150);
  for (int s = 0; s <= 150; s += 5) folder.Panel(s, s / 20);
  for (uint32_t s = 1; s <= 150; ++s) folder.Step(s, 4, 50);
  const RunData run = folder.Read();
  EXPECT_LE(run.columns.size(), kMaxColumns + 1);
  const std::string html = RenderReport({run}, {});
  EXPECT_TRUE(std::regex_search(
      html, std::regex("6[01] of 150 recorded steps, evenly picked")));
  EXPECT_LT(html.size(), 5u << 20);
  EXPECT_THAT(html, Not(HasSubstr("\"nan\"")));
}

TEST(Report, SaysInOneLineWhatIsWrongWithARun) {
  const auto error = [](const RunFolder& folder) {
    return std::string(ReadRun(folder.path()).status().message());
  };
  EXPECT_THAT(std::string(ReadRun("/none").status().message()),
              HasSubstr("/none: RUN: found nothing, expected the folder"));
  RunFolder folder("bad", "atod", 0);
  EXPECT_THAT(error(folder), HasSubstr("RUN: found no metrics.jsonl"));
  folder.Write("metrics.jsonl", "");
  EXPECT_THAT(error(folder), HasSubstr("found no step"));
  folder.Write("metrics.jsonl", "{\"step\":1}\nnoise\n{\"step\":2}\n");
  EXPECT_THAT(error(folder), HasSubstr("metrics.jsonl:2: found noise"));
  // A last line that is not finished is not wrong.
  folder.Write("metrics.jsonl", "{\"step\":1}\n{\"ste");
  EXPECT_EQ(folder.Read().steps.size(), 1u);
  folder.Write("evals/panel-000001.jsonl", "{\"success\":3}\n");
  EXPECT_THAT(error(folder), HasSubstr("panel-000001.jsonl:1: success: found"));
}

TEST(Report, RunWithNothingButStepsStillMakesAPage) {
  RunFolder folder("bare", "grpo", 0);
  folder.Write("metrics.jsonl", "{\"step\":1}\n");
  fs::remove(folder.path() + "/config.resolved.yaml");
  const std::string html = RenderReport({folder.Read()}, {});
  EXPECT_THAT(html, HasSubstr("</html>"));
  EXPECT_THAT(html, HasSubstr("n/a"));
}

TEST(Escape, LeavesNoMarkupAndNoBrokenUtf8) {
  EXPECT_EQ(Escape("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
  EXPECT_EQ(Escape("\xff"), "\xEF\xBF\xBD");
  EXPECT_EQ(Escape("\xe2\x82"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(Escape("€\x01"), "€ ");
}

TEST(Chart, TicksAreRoundAndCover) {
  EXPECT_THAT(Ticks(0, 100, 5), ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(Ticks(0.1, 0.9, 4),
              ElementsAre(0.2, 0.4, 0.6000000000000001, 0.8));
  EXPECT_EQ(Short(0.00025), "2.5e-4");
  EXPECT_EQ(Short(0.001), "1e-3");
  EXPECT_EQ(Short(12345), "12345");
}

TEST(Chart, ValuesThatCannotBeDrawnLiftThePen) {
  Chart chart{.title = "t", .log_y = true};
  chart.lines.push_back(
      {.name = "a", .points = {{1, 1}, {2, 0}, {3, NAN}, {4, 10}}});
  const std::string svg = RenderChart(chart);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  EXPECT_TRUE(std::regex_search(svg, std::regex("d=\"M[0-9. ]+M[0-9. ]+\"")));
  EXPECT_EQ(RenderChart(Chart{.title = "empty"}), "");
}

TEST(Chart, ZerosOnALogAxisAreNeitherDrawnNorInTheLegend) {
  Chart chart{.title = "t", .log_y = true};
  chart.lines.push_back({.name = "zeros", .points = {{1, 0}, {2, 0}}});
  EXPECT_EQ(RenderChart(chart), "");
  for (const char* name : {"one", "two"})
    chart.lines.push_back({.name = name, .points = {{1, 1}, {2, 2}}});
  EXPECT_THAT(RenderChart(chart), HasSubstr("</svg>one</li>"));
  EXPECT_THAT(RenderChart(chart), Not(HasSubstr("</svg>zeros</li>")));
}

TEST(Chart, NoTwoOfThirtyTwoLinesShareColourAndDashes) {
  Chart chart{.title = "t"};
  for (int i = 0; i < 32; ++i)
    chart.lines.push_back({.name = absl::StrCat("s", i),
                           .colour = i,
                           .points = {{1, 1}, {2, 2}}});
  // Once in the legend, once in the plot.
  std::map<std::string, int> strokes;
  for (const std::string& svg : {RenderChart(chart), StandaloneSvg(chart)}) {
    const std::regex stroke("class=\"line (l[0-7] d[0-3])\"");
    for (std::sregex_iterator it(svg.begin(), svg.end(), stroke), end;
         it != end; ++it)
      ++strokes[(*it)[1]];
  }
  EXPECT_EQ(strokes.size(), 32u);
  for (const auto& [stroke, count] : strokes) EXPECT_EQ(count, 4) << stroke;
}

TEST(Chart, OneValueHasAnAxis) {
  Chart chart{.title = "t"};
  chart.lines.push_back({.name = "a", .points = {{5, 3}}});
  EXPECT_THAT(RenderChart(chart), HasSubstr("<circle"));
}

TEST(RunData, SpreadKeepsBothEnds) {
  EXPECT_THAT(Spread({1, 2, 3, 4, 5, 6, 7}, 3), ElementsAre(1, 4, 7));
  EXPECT_THAT(Spread({1, 2}, 3), ElementsAre(1, 2));
}

TEST(RunData, FlattensListsAndQuotedText) {
  const auto flat = FlattenConfig(
      "a: 1\nb:\n  c: \"x \\\"y: # z\"\n  d:\n    e: 2\nf:\n  - g: 3\n    h: "
      "4\n  - g: 5\ni: 6\n",
      "x.yaml");
  ASSERT_TRUE(flat.ok()) << flat.status();
  const std::map<std::string, std::string>& keys = *flat;
  EXPECT_EQ(keys.at("b.c"), "x \"y: # z");
  EXPECT_EQ(keys.at("b.d.e"), "2");
  EXPECT_EQ(keys.at("f.0.h"), "4");
  EXPECT_EQ(keys.at("f.1.g"), "5");
  EXPECT_EQ(keys.at("i"), "6");
  EXPECT_EQ(keys.size(), 7u);
}

TEST(RunData, NamesTheLineOfAConfigurationThatIsNoYaml) {
  const auto flat = FlattenConfig("a: 1\nb: [\n", "x.yaml");
  EXPECT_EQ(flat.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(flat.status().message()), HasSubstr("x.yaml:"));
}

TEST(Report, ADamagedSpoolIsNamedAndTheRestIsShown) {
  RunFolder folder("spool", "atod", 0);
  folder.Metrics(3);
  folder.Step(1, 2, 3);
  folder.Step(2, 2, 3);
  const auto file = [&](uint32_t step) {
    return learner::TrajectoryFile(atod::RunFolder(folder.path()).spool(),
                                   v1::TRAIN, step);
  };
  const auto size = fs::file_size(file(1));
  fs::resize_file(file(1), size - 1);
  EXPECT_THAT(folder.Read().damage,
              ElementsAre(HasSubstr("spool: no trajectories of step 3"),
                          AllOf(HasSubstr(file(1) + ": frame at byte "),
                                HasSubstr("left out"))));
  // One solved and one unsolved of step 2, the first of step 1.
  EXPECT_EQ(folder.Read().trajectories.size(), 3u);
  std::fstream(file(1), std::ios::in | std::ios::out).write("x", 1);
  EXPECT_THAT(folder.Read().damage[1], HasSubstr("found a damaged header"));
  // A damaged payload takes nothing else with it.
  std::fstream(file(2), std::ios::in | std::ios::out).seekp(20).write("x", 1);
  EXPECT_THAT(folder.Read().damage[2],
              AllOf(HasSubstr(file(2) + ": frame at byte 0: found a wrong"),
                    testing::EndsWith(": left out")));
  EXPECT_EQ(folder.Read().trajectories.size(), 1u);
  EXPECT_THAT(LeftOut(folder.Read()), testing::SizeIs(3));
}

TEST(Report, OneRunsPageHasHeldOutGamesTimesAndTheGames) {
  RunFolder folder("page", "atod", 0);
  folder.Metrics(2);
  folder.HeldOut("teacher", 6);
  folder.HeldOut("trained-last", 9);
  folder.Write("timings.jsonl",
               "{\"step\":1,\"timing/step_seconds\":2.5}\n"
               "{\"step\":2,\"timing/step_seconds\":3.6,"
               "\"timing/eval_seconds\":1}\n");
  folder.Write("seconds.json", "{\"cores\": 2, \"prepare\": 98}");
  folder.Write("games.txt", "games  10\n");
  const std::string page = RenderMarkdown({folder.Read()}, "x.svg");
  EXPECT_THAT(page, HasSubstr("# Run page\n"));
  EXPECT_THAT(page, HasSubstr("![learning curves](x.svg)"));
  EXPECT_THAT(page,
              HasSubstr("| trained student, last checkpoint | 90.0 [59.6, "
                        "98.2] | 7.0 | +30.0"));
  EXPECT_THAT(page, HasSubstr("10 games a split and row."));
  EXPECT_THAT(page,
              HasSubstr("| success % by task type, unseen | teacher | "
                        "trained-last |\n|---|---:|---:|\n| (none) | 60.0 "
                        "| 90.0 |"));
  EXPECT_THAT(page, HasSubstr("On 2 cores: 98 s for games"));
  EXPECT_THAT(page, HasSubstr("7 s for 2 steps of training"));
  EXPECT_THAT(page, HasSubstr("```\ngames  10\n```"));
}

}  // namespace
}  // namespace atod::report
