#include "services/envs/games/planner.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::games {
namespace {

struct Seen {
  std::string task;
  std::string holding = "nothing";
  std::string fresh = "cabinet 1, countertop 1, fridge 1, microwave 1";
  std::string checked = "nothing";
  std::string recent = "nothing";
  std::string text = "start.";
};

std::string Next(const Seen& seen, bool forgets = false) {
  envs::Observation observation;
  observation.task = seen.task;
  observation.fields = {{"holding", seen.holding},
                        {"unchecked", seen.fresh},
                        {"checked", seen.checked},
                        {"recent", seen.recent},
                        {"text", seen.text}};
  const Step step = Plan(observation, forgets);
  EXPECT_EQ(step.gave_up && step.command != "look", false);
  return step.gave_up ? "(gives up)" : step.command;
}

constexpr char kCounter[] =
    "You arrive at countertop 1. On the countertop 1, you see a apple* 2, a "
    "apple* 1, and a pen 1.";

TEST(Planner, UnderstandsEveryWordingOfEveryTask) {
  for (const char* task :
       {"put a apple in fridge.", "put some apple on fridge.",
        "put a clean apple in fridge.",
        "clean some apple and put it in fridge.", "put a hot apple in fridge.",
        "heat some apple and put it in fridge.", "put a cool apple in cabinet.",
        "cool some apple and put it in cabinet.", "put two apple in fridge.",
        "find two apple and put them in fridge.",
        "look at apple under the desklamp.",
        "examine the apple with the desklamp."})
    EXPECT_EQ(Next({.task = task, .text = kCounter}),
              "take apple 2 from countertop 1")
        << task;
}

TEST(Planner, VisitsInOrderAndOpensWhatIsClosed) {
  const std::string task = "put a mug in fridge.";
  EXPECT_EQ(Next({.task = task}), "go to cabinet 1");
  EXPECT_EQ(Next({.task = task,
                  .recent = "go to cabinet 1",
                  .text = "You arrive at cabinet 1. The cabinet 1 is closed."}),
            "open cabinet 1");
  EXPECT_EQ(Next({.task = task,
                  .fresh = "fridge* 1, microwave 1",
                  .checked = "cabinet 1, countertop 1",
                  .text = kCounter}),
            "go to fridge 1");
}

TEST(Planner, TreatsBeforeItDelivers) {
  Seen seen{.task = "heat some apple and put it in fridge.",
            .holding = "apple* 1",
            .recent = "take apple* 1 from countertop 1",
            .text = "You pick up the apple* 1 from the countertop 1."};
  EXPECT_EQ(Next(seen), "go to microwave 1");
  EXPECT_EQ(Next(seen, /*forgets=*/true), "go to fridge 1");
  seen.text = "You arrive at microwave 1. The microwave 1 is closed.";
  EXPECT_EQ(Next(seen), "heat apple 1 with microwave 1");
  seen.holding = "hot apple* 1";
  seen.text = "You heat the apple* 1 using the microwave 1.";
  EXPECT_EQ(Next(seen), "go to fridge 1");
  seen.text = "You arrive at fridge* 1. The fridge* 1 is closed.";
  EXPECT_EQ(Next(seen), "open fridge 1");
  seen.text =
      "You open the fridge* 1. The fridge* 1 is open. In it, you see nothing.";
  EXPECT_EQ(Next(seen), "move apple 1 to fridge 1");
}

TEST(Planner, BringsBothToTheSamePlaceAndLeavesThemThere) {
  Seen seen{.task = "put two apple in countertop.",
            .holding = "apple* 1",
            .fresh = "countertop* 2, countertop* 1, fridge 1",
            .text = "You pick up the apple* 1 from the fridge 1."};
  EXPECT_EQ(Next(seen), "go to countertop 2");
  seen.holding = "nothing";
  seen.text =
      "You arrive at countertop* 2. On the countertop* 2, you see a apple* 1.";
  EXPECT_EQ(Next(seen), "go to countertop 1");
  seen.text =
      "You arrive at countertop* 1. On the countertop* 1, you see a apple* 2.";
  EXPECT_EQ(Next(seen), "take apple 2 from countertop 1");
}

TEST(Planner, UsesTheLampOnlyWithTheThingInHand) {
  Seen seen{.task = "look at book under the desklamp.",
            .fresh = "desk 1, shelf 1",
            .text =
                "You arrive at desk 1. On the desk 1, you see a desklamp* "
                "1, and a pen 1."};
  EXPECT_EQ(Next(seen), "go to shelf 1");
  seen.holding = "book* 1";
  EXPECT_EQ(Next(seen), "use desklamp 1");
  EXPECT_EQ(Next(seen, /*forgets=*/true), "(gives up)");
}

TEST(Planner, PutsAsideWhatItDoesNotNeed) {
  EXPECT_EQ(Next({.task = "put a mug in fridge.",
                  .holding = "pen 1",
                  .text = "You pick up the pen 1 from the countertop 1."}),
            "move pen 1 to countertop 1");
  // A pen does not go into a fridge.
  EXPECT_EQ(Next({.task = "put a mug in fridge.",
                  .holding = "pen 1",
                  .text = "You arrive at fridge* 1. The fridge* 1 is open. In "
                          "it, you see nothing."}),
            "go to countertop 1");
}

TEST(Planner, FindsItsWayAfterACommandThatDidNothing) {
  // Going where one stands: it is there, and looks again.
  EXPECT_EQ(Next({.task = "put a mug in fridge.",
                  .recent = "go to countertop 1, go to countertop 1",
                  .text = "Nothing happens."}),
            "examine countertop 1");
  // Examining failed: it is somewhere else.
  EXPECT_EQ(Next({.task = "put a mug in fridge.",
                  .recent = "look, examine countertop 1",
                  .text = "Nothing happens."}),
            "go to cabinet 1");
}

TEST(Planner, ForgetfulOneStopsAfterTheFirstOfTwo) {
  const Seen seen{.task = "put two apple in fridge.",
                  .recent = "go to fridge* 1, move apple* 1 to fridge* 1",
                  .text = "You move the apple* 1 to the fridge* 1."};
  EXPECT_EQ(Next(seen), "go to cabinet 1");
  EXPECT_EQ(Next(seen, /*forgets=*/true), "(gives up)");
}

TEST(Planner, AnswersAnythingItIsShown) {
  EXPECT_EQ(Next({.task = "", .fresh = "", .text = ""}), "look");
  EXPECT_EQ(Next({.task = "put",
                  .holding = "1",
                  .fresh = "bed 1, , b",
                  .recent = ",",
                  .text = "On the , you see . The "}),
            "go to bed 1");
}

}  // namespace
}  // namespace atod::games
