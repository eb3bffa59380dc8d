#include "report/left_out.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "report/report.h"
#include "report/summary.h"

namespace atod::report {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// Four games, won or lost as `wins` says ('1', '0'), 'x' left out.
PanelEval Panel(uint32_t step, const std::string& wins) {
  PanelEval eval{step, {}, {}};
  for (size_t i = 0; i < wins.size(); ++i) {
    Game game;
    game.panel = "p";
    game.task = absl::StrCat("game-", i);
    game.place = i;
    game.success = wins[i] == '1';
    game.turns = 5;
    if (wins[i] == 'x') game.error = "environment: the server is gone";
    (wins[i] == 'x' ? eval.left_out : eval.games).push_back(game);
  }
  return eval;
}

RunData RunOf(std::vector<PanelEval> panel) {
  RunData run;
  run.name = "r";
  run.panel = std::move(panel);
  for (uint32_t s = 0; s <= 3; ++s)
    run.steps.push_back({s, {{"episode/success_rate", 0.5}}});
  return run;
}

TEST(LeftOut, NothingIsSaidOfARunThatIsWhole) {
  EXPECT_THAT(LeftOut(RunOf({Panel(0, "0000"), Panel(3, "1100")})), IsEmpty());
}

TEST(LeftOut, EpisodesThatEndedInErrorsAreCountedByKindWithTheirSteps) {
  RunData run = RunOf({});
  run.steps[1].scalars.insert({{"episode/errors", 2},
                               {"episode/dropped", 3},
                               {"episode/errors_prompt", 2},
                               {"episode/errors_task", 0}});
  run.steps[3].scalars.insert({{"episode/errors", 1},
                               {"episode/dropped", 1},
                               {"episode/errors_environment", 1}});
  EXPECT_THAT(
      LeftOut(run),
      ElementsAre("Training: 4 episodes are in no mean and no gradient, 3 "
                  "because they ended in errors (environment 1, prompt 2), at "
                  "2 of 4 steps: steps 1, 3."));
}

TEST(LeftOut, PanelGamesAreNamedAndTheirEvaluationsStayInTheTable) {
  const RunData run =
      RunOf({Panel(0, "0000"), Panel(1, "1111"), Panel(3, "10x0")});
  EXPECT_THAT(LeftOut(run),
              ElementsAre("Evaluations: games left out of their means: 1 of 4 "
                          "after step 3; the first, game-2: environment: the "
                          "server is gone.",
                          "Evaluations are over 3 to 4 games: their rates are "
                          "not of the same games."));
  const RunSummary s = Summarize(run);
  ASSERT_TRUE(s.before.has_value());
  EXPECT_EQ(s.evaluations, 2u);
  EXPECT_EQ(s.games, 4u);
  EXPECT_DOUBLE_EQ(s.best->success.value, 1);
  EXPECT_DOUBLE_EQ(s.last->success.value, 1.0 / 3);
  // Each game over the evaluations that played it.
  EXPECT_THAT(s.mean_games, ElementsAre(1, 0.5, 1, 0.5));
}

TEST(LeftOut, ARunWithoutPanelFilesIsJudgedByItsMetrics) {
  RunData run = RunOf({});
  run.steps[0].scalars["val/tasks"] = 4;
  run.steps[3].scalars.insert({{"val/tasks", 3}, {"val/errors", 1}});
  EXPECT_THAT(LeftOut(run),
              testing::Contains(HasSubstr("1 of 4 after step 3")));
}

TEST(LeftOut, EvaluationsOfAnotherPanelAreNamed) {
  RunData run = RunOf({Panel(0, "0000"), Panel(3, "1100")});
  run.panel[0].games[1].task = "another";
  EXPECT_THAT(LeftOut(run), testing::Contains(HasSubstr("after step 0 are of "
                                                        "another panel")));
}

TEST(LeftOut, StandsInEveryReport) {
  const RunData run = RunOf({Panel(0, "0000"), Panel(3, "1x00")});
  for (const std::string& page :
       {RenderMarkdown({run}), RenderReport({run}, {})})
    EXPECT_THAT(page, HasSubstr("1 of 4 after step 3")) << page;
  RunData other = run;
  other.name = "s";
  EXPECT_THAT(RenderMarkdown({run, other}),
              HasSubstr("s: Evaluations: games left out"));
  EXPECT_THAT(RenderMarkdown({RunOf({Panel(0, "0000")})}),
              Not(HasSubstr("Left out")));
}

}  // namespace
}  // namespace atod::report
