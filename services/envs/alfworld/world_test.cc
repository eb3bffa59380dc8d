#include "services/envs/alfworld/world.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/problem.h"
#include "common/base/rng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/envs/alfworld/tiny_game.h"
#include "services/envs/games/game_file.h"
#include "services/envs/games/generator.h"

namespace atod::envs {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class WorldTest : public ::testing::Test {
 protected:
  WorldTest() : game_(MakeGame(TinyGame())), world_(Checked()) {
    EXPECT_TRUE(world_.Reset().ok());
  }
  std::shared_ptr<const Game> Checked() {
    EXPECT_TRUE(game_.ok()) << game_.status();
    return *game_;
  }
  const std::string& Do(const std::string& command) {
    EXPECT_TRUE(world_.Step(command).ok());
    return world_.feedback();
  }

  absl::StatusOr<std::shared_ptr<const Game>> game_;
  World world_;
};

TEST_F(WorldTest, TheStartSaysWhatHolds) {
  EXPECT_EQ(world_.feedback(),
            "Here: blue 1 is shut. Your task is to: gather.");
  // No "walk to red 1": it would change nothing.
  EXPECT_THAT(world_.admissible(),
              ElementsAre("flip", "grab ball 2", "open all", "walk to blue 1"));
  EXPECT_FALSE(world_.won());
}

TEST_F(WorldTest, AnUnknownCommandChangesNothing) {
  const auto before = world_.admissible();
  for (const char* command : {"Flip", "grab ball 1", "", "walk"}) {
    EXPECT_EQ(Do(command), "Nothing happens.");
    EXPECT_FALSE(world_.last_admissible());
    EXPECT_EQ(world_.admissible(), before);
  }
  EXPECT_EQ(Do("  flip\n"), "Click.");
  EXPECT_TRUE(world_.last_admissible());
}

TEST_F(WorldTest, QuantifiedAndConditionalEffectsUseTheStateBefore) {
  EXPECT_EQ(Do("flip"), "Click.");
  EXPECT_TRUE(world_.Holds("lit", {}));
  EXPECT_EQ(Do("flip"), "Click.");
  EXPECT_FALSE(world_.Holds("lit", {}));
  EXPECT_THAT(world_.admissible(), Not(Contains("boast")));
  EXPECT_EQ(Do("open all"), "Open.");
  EXPECT_TRUE(world_.Holds("seen", {"blue_bar_1"}));
  EXPECT_FALSE(world_.Holds("seen", {"red_bar_1"}));
  EXPECT_THAT(world_.admissible(), Contains("boast"));
  EXPECT_THAT(world_.admissible(), Not(Contains("open all")));
  // Blanks at the start of a text are dropped, others kept.
  EXPECT_EQ(Do("boast"), "Ha,\nha.");
}

TEST_F(WorldTest, DeletionsAreRecordedUntilAddedAgain) {
  EXPECT_EQ(Do("grab ball 2"), "You have ball 2, left: ball 2.");
  EXPECT_EQ(Do("drop ball 2"), "Dropped.");
  EXPECT_TRUE(world_.FactsOf("not_in").empty());
}

TEST_F(WorldTest, TheGoalIsReachedAndCanBeLeft) {
  for (const char* command :
       {"open all", "grab ball 2", "walk to blue 1", "drop ball 2"}) {
    EXPECT_FALSE(world_.won());
    Do(command);
    EXPECT_TRUE(world_.last_admissible()) << command;
  }
  EXPECT_TRUE(world_.won());
  Do("grab ball 2");
  EXPECT_FALSE(world_.won());
  ASSERT_TRUE(world_.Reset().ok());
  EXPECT_EQ(Do("walk to blue 1"), "blue 1 is shut.");
}

TEST_F(WorldTest, WithoutDemanglerNamesAreIds) {
  const auto game = MakeGame(TinyGame(), {.demangle = false});
  ASSERT_TRUE(game.ok());
  World world(*game);
  ASSERT_TRUE(world.Reset().ok());
  EXPECT_THAT(world.admissible(), Contains("grab ball_bar_1"));
}

// What is replaced in a good game, by what, in which field the error lies, and
// a word of it.
struct Fault {
  std::string field;
  std::string from, to;
  std::string word;
};

TEST(BrokenGameTest, EveryFaultIsOneErrorThatNamesItsField) {
  const std::vector<Fault> faults = {
      {"pddl_domain", "(near ?a ?from)\n", "(nearr ?a ?from)\n", "'nearr'"},
      {"pddl_domain", "(near ?a ?from)\n", "(near ?a)\n", "1 arguments"},
      {"pddl_domain", "(near ?a ?from)\n", "(near ?a ?form)\n", "'?form'"},
      {"pddl_domain", "(near ?a ?from)\n", "(near ?a ?from\n", "the end"},
      {"pddl_domain", "(:types", "(:kinds", "(:kinds"},
      {"pddl_domain", "(not (has ?a ?o))", "(not (has ?a ?o) (lit))", "not"},
      {"pddl_domain", "box ball actor", "box - ball ball - box actor",
       "itself"},
      {"pddl_problem", "(:domain tiny)", "(:domain huge)", "huge"},
      {"pddl_problem", "- actor", "- actress", "'actress'"},
      {"pddl_problem", "(near me red_bar_1)", "(near you red_bar_1)", "'you'"},
      {"pddl_problem", "(near me red_bar_1)", "(near me)", "1 arguments"},
      {"pddl_problem", "(near me red_bar_1)", "(far me)", "'far'"},
      {"pddl_problem", "(:goal", "(:gaol", "(:gaol"},
      {"pddl_problem", "(in ?x ?b)", "(in ?x ?c)", "'?c'"},
      {"pddl_problem", "Ball_bar_1 Ball", "B\xc3\xa4ll Ball", "ASCII"},
      {"grammar", "\"walked\": [", "\"walked\": {", "JSON"},
      {"grammar", "{\"rhs\": \"In {to}", "{\"lhs\": \"In {to}", "rhs"},
      {"grammar", "#walked#", "#talked#", "#talked#"},
      {"grammar", "action flip", "action flap", "'flip'"},
      {"grammar", "template :: \"flip\";", "", "template"},
      {"grammar", "\"Click.\"; }", "\"Click.\";", "'action'"},
      {"grammar", "ha.\"; }", "ha.; }", "without end"},
      {"grammar", "walk to {to}", "walk to {to.size}", "to.size"},
      {"grammar", "shut(b:box)", "shut b", "predicate(variable:type"},
      {"grammar", "Your task is to: gather.", "#intro#", "endless"},
      {"grammar", "Here: ", "Here: {nobody} ", "{nobody}"},
  };
  for (const Fault& fault : faults) {
    GameText text = TinyGame();
    std::string& field = fault.field == "grammar"       ? text.grammar
                         : fault.field == "pddl_domain" ? text.domain
                                                        : text.problem;
    ASSERT_GT(absl::StrReplaceAll({{fault.from, fault.to}}, &field), 0)
        << fault.from;
    const auto game = MakeGame(text);
    ASSERT_FALSE(game.ok()) << fault.to;
    EXPECT_EQ(ProblemOf(game.status()).field, fault.field) << game.status();
    EXPECT_THAT(std::string(game.status().message()), HasSubstr(fault.word));
  }
}

TEST(BrokenGameTest, LinesCountFromOneInsideTheField) {
  GameText text = TinyGame();
  absl::StrReplaceAll({{"(near me red_bar_1)", "(far me)"}}, &text.problem);
  EXPECT_EQ(ProblemOf(MakeGame(text).status()).line, 3);
}

TEST(BrokenGameTest, DeepNestingIsRefusedNotOverflowed) {
  GameText text = TinyGame();
  text.problem = std::string(1'000'000, '(');
  EXPECT_THAT(std::string(MakeGame(text).status().message()),
              HasSubstr("nested"));
}

// What would take hours, gigabytes or the whole stack.
TEST(BrokenGameTest, EndlessWorkIsRefused) {
  const auto repeat = [](const std::string& what, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) absl::StrAppend(&out, what, " ");
    return out;
  };
  const auto refused = [](const GameText& text) {
    const auto game = MakeGame(text);
    if (!game.ok()) return std::string(game.status().message());
    return std::string(World(*game).Reset().message());
  };
  GameText text = TinyGame();
  std::string params, objects;
  for (int i = 0; i < 8; ++i) absl::StrAppend(&params, "?x", i, " ");
  for (int i = 0; i < 30; ++i) absl::StrAppend(&objects, "box", i, " ");
  absl::StrReplaceAll({{"(?a - actor) :precondition ()",
                        absl::StrCat("(", params, "- box) :precondition ()")}},
                      &text.domain);
  absl::StrReplaceAll(
      {{"red_bar_1 blue_bar_1 - box",
        absl::StrCat("red_bar_1 blue_bar_1 ", objects, "- box")}},
      &text.problem);
  absl::StrReplaceAll({{"(when (lit) (not (lit)))", "(not (lit))"},
                       {"(when (not (lit)) (lit))", "(lit)"}},
                      &text.domain);
  EXPECT_THAT(refused(text), HasSubstr("endless number of commands"));
  absl::StrReplaceAll({{":precondition ()", ":precondition (not (= ?x7 ?x7))"}},
                      &text.domain);
  EXPECT_THAT(refused(text), HasSubstr("too long to search"));

  text = TinyGame();
  absl::StrReplaceAll(
      {{":precondition ()",
        absl::StrCat(":precondition (and ", repeat("(lit)", 200'000), ")")}},
      &text.domain);
  EXPECT_THAT(refused(text), HasSubstr("at most 1000 in one action"));

  text = TinyGame();
  absl::StrReplaceAll(
      {{"(:types", absl::StrCat("(:types ",
                                [] {
                                  std::string types;
                                  for (int i = 0; i < 50'000; ++i)
                                    absl::StrAppend(&types, "t", i, " ");
                                  return types;
                                }())}},
      &text.domain);
  EXPECT_THAT(refused(text), HasSubstr("at most 1000"));

  text = TinyGame();
  absl::StrReplaceAll(
      {{"Here: ",
        absl::StrCat("Here: {'x' | ", repeat("lit() &", 100'000), "lit()} ")}},
      &text.grammar);
  EXPECT_THAT(refused(text), HasSubstr("in one query"));

  text = TinyGame();
  std::string rules;
  for (int i = 0; i < 30; ++i)
    absl::StrAppend(&rules, "\"r", i, "\": [{\"rhs\": \"#r", i + 1, "##r",
                    i + 1, "#\"}], ");
  absl::StrReplaceAll(
      {{"\"walked\"", absl::StrCat(rules, "\"r30\": [{\"rhs\": \"",
                                   std::string(1000, 'x'), "\"}], \"walked\"")},
       {"Here: ", "Here: #r0# "}},
      &text.grammar);
  EXPECT_THAT(refused(text), HasSubstr("come to an end"));
}

TEST(BrokenGameTest, AnyCutOfAGameFileIsAnError) {
  const auto collection = games::Generate({.seed = 5, .games = {1, 1, 1}});
  ASSERT_TRUE(collection.ok()) << collection.status();
  const std::string json = games::GameFileText(collection->games[0]);
  ASSERT_TRUE(ParseGame(json).ok());
  for (size_t size = 0; size + 2 < json.size(); size += 97)
    EXPECT_FALSE(ParseGame(json.substr(0, size)).ok()) << size;
  EXPECT_FALSE(ParseGame("[]").ok());
  EXPECT_FALSE(ParseGame(R"({"pddl_domain": 3})").ok());
}

TEST(BrokenGameTest, RandomDamageNeverCrashes) {
  Rng rng(1);
  for (int i = 0; i < 300; ++i) {
    GameText text = TinyGame();
    for (std::string* field : {&text.domain, &text.problem, &text.grammar})
      for (int k = 0; k < 2; ++k)
        (*field)[rng.Below(field->size())] =
            "(){}[]#\"?-|:; a\n"[rng.Below(16)];
    const auto game = MakeGame(text);
    if (!game.ok()) continue;
    World world(*game);
    if (!world.Reset().ok()) continue;
    for (int step = 0; step < 5 && !world.admissible().empty(); ++step)
      if (!world.Step(world.admissible()[0]).ok()) break;
  }
}

class GeneratedGamesTest : public ::testing::Test {
 protected:
  static const games::Collection& Collection() {
    static const auto* collection = new absl::StatusOr<games::Collection>(
        games::Generate({.seed = 11, .games = {24, 6, 6}}));
    return **collection;
  }
};

TEST_F(GeneratedGamesTest, WalkthroughsWin) {
  for (const games::Game& file : Collection().games) {
    const auto game = ParseGame(games::GameFileText(file));
    ASSERT_TRUE(game.ok()) << game.status();
    World world(*game);
    ASSERT_TRUE(world.Reset().ok());
    for (const std::string& command : (*game)->walkthrough()) {
      ASSERT_FALSE(world.won());
      ASSERT_TRUE(world.Step(command).ok());
      ASSERT_TRUE(world.last_admissible()) << command;
    }
    EXPECT_TRUE(world.won()) << file.sentence;
  }
}

// Along random walks: admissible commands do something, others nothing, the
// list is sorted and free of doubles, and the same walk shows the same again.
TEST_F(GeneratedGamesTest, RandomWalksKeepTheRules) {
  Rng rng(7);
  for (const games::Game& file : Collection().games) {
    const auto game = ParseGame(games::GameFileText(file));
    ASSERT_TRUE(game.ok()) << game.status();
    World world(*game), again(*game);
    ASSERT_TRUE(world.Reset().ok() && again.Reset().ok());
    std::set<std::string> met;
    for (int step = 0; step < 60; ++step) {
      const std::vector<std::string> admissible = world.admissible();
      ASSERT_FALSE(admissible.empty());
      for (size_t i = 1; i < admissible.size(); ++i)
        ASSERT_LT(admissible[i - 1], admissible[i]);
      met.insert(admissible.begin(), admissible.end());
      std::string command = admissible[rng.Below(admissible.size())];
      bool expected = true;
      if (rng.Below(8) == 0) {
        auto any = met.begin();
        std::advance(any, rng.Below(met.size()));
        command = *any;
        expected =
            std::binary_search(admissible.begin(), admissible.end(), command);
      }
      ASSERT_TRUE(world.Step(command).ok());
      ASSERT_TRUE(again.Step(command).ok());
      ASSERT_EQ(world.last_admissible(), expected);
      ASSERT_EQ(world.feedback() != "Nothing happens.", expected) << command;
      if (!expected) {
        ASSERT_EQ(world.admissible(), admissible);
      }
      ASSERT_EQ(world.feedback(), again.feedback());
      ASSERT_EQ(world.admissible(), again.admissible());
      ASSERT_EQ(world.won(), again.won());
    }
  }
}

}  // namespace
}  // namespace atod::envs
