#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/envs/alfworld/alfworld_environment.h"
#include "services/envs/alfworld/world.h"
#include "services/envs/games/collection.h"
#include "services/envs/games/demos.h"
#include "services/envs/games/game_file.h"
#include "services/envs/games/generator.h"
#include "services/envs/games/planner.h"
#include "services/envs/games/policies.h"

namespace atod::games {
namespace {

constexpr uint32_t kTurns = 20;

// 300 train games in a folder of this process, opened once.
class PlayTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = testing::TempDir() + "/games_play";
    std::filesystem::remove_all(dir_);
    GeneratorOptions options;
    options.seed = 11;
    options.games = {300, 6, 6};
    absl::StatusOr<Collection> all = Generate(options);
    ASSERT_TRUE(all.ok()) << all.status();
    collection_ = new Collection(std::move(*all));
    ASSERT_TRUE(WriteCollection(*collection_, dir_).ok());
    envs::AlfworldOptions env_options;
    env_options.data = dir_;
    env_options.prompt_set = "compact";
    env_options.max_turns = kTurns;
    auto env = envs::AlfworldEnvironment::Open(env_options);
    ASSERT_TRUE(env.ok()) << env.status();
    env_ = env->release();
  }
  static void TearDownTestSuite() {
    std::filesystem::remove_all(dir_);
    delete env_;
    delete collection_;
  }

  // Turns of each game, 0 for a lost one.
  static std::vector<uint32_t> Play(const std::string& policy) {
    std::vector<uint32_t> turns;
    for (uint32_t i = 0; i < 300; ++i) {
      const envs::TaskInfo task = *env_->GetTask("train", i);
      std::unique_ptr<envs::Episode> episode =
          *env_->Start({"train", task.task_id, 0, 0});
      const std::unique_ptr<Policy> player = *MakePolicy(policy, i);
      while (!episode->observation().done)
        episode->StepAction(player->Act(episode->observation()));
      turns.push_back(episode->observation().success
                          ? episode->observation().turn_index
                          : 0);
    }
    return turns;
  }
  static size_t Won(const std::vector<uint32_t>& turns) {
    return turns.size() - std::count(turns.begin(), turns.end(), 0u);
  }

  static std::string dir_;
  static Collection* collection_;
  static envs::AlfworldEnvironment* env_;
};
std::string PlayTest::dir_;
Collection* PlayTest::collection_ = nullptr;
envs::AlfworldEnvironment* PlayTest::env_ = nullptr;

TEST_F(PlayTest, EnvironmentShowsTheGamesOfTheManifest) {
  std::map<std::string, uint32_t> sizes;
  for (const envs::SplitInfo& split : env_->description().splits)
    sizes[split.name] = split.size;
  EXPECT_THAT(sizes, testing::ElementsAre(testing::Pair("train", 300),
                                          testing::Pair("valid_seen", 6),
                                          testing::Pair("valid_unseen", 6)));
  std::map<std::string, std::string> hashes;
  const Manifest manifest = *ReadManifest(dir_);
  for (const GameRow& row : manifest.splits.at("train"))
    hashes[row.content_hash] = row.task_type;
  for (uint32_t i = 0; i < 300; ++i) {
    const envs::TaskInfo task = *env_->GetTask("train", i);
    EXPECT_EQ(hashes[task.content_hash], task.category);
  }
}

TEST_F(PlayTest, WalkthroughsWinAndNothingBeforeTheirLastCommandDoes) {
  for (const Game& game : collection_->games) {
    auto parsed = envs::ParseGame(GameFileText(game));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    envs::World world(*parsed);
    ASSERT_TRUE(world.Reset().ok());
    for (const std::string& command : game.walkthrough) {
      EXPECT_FALSE(world.won()) << GameFolder(game);
      ASSERT_TRUE(world.Step(command).ok());
      EXPECT_TRUE(world.last_admissible()) << GameFolder(game) << command;
    }
    EXPECT_TRUE(world.won()) << GameFolder(game);
  }
}

TEST_F(PlayTest, PlannerWinsEveryGameInTheTurnsOfTheManifest) {
  std::map<std::string, int> expected;
  const Manifest manifest = *ReadManifest(dir_);
  for (const GameRow& row : manifest.splits.at("train"))
    expected[row.content_hash] = row.turns;
  const std::vector<uint32_t> turns = Play("planner");
  EXPECT_EQ(Won(turns), 300u);
  for (uint32_t i = 0; i < 300; ++i)
    EXPECT_EQ(turns[i], static_cast<uint32_t>(
                            expected[env_->GetTask("train", i)->content_hash]));
}

TEST_F(PlayTest, RandomPolicyHardlyWinsAndRepeatsItself) {
  const std::vector<uint32_t> turns = Play("random");
  EXPECT_LE(Won(turns), 15u);
  EXPECT_EQ(Play("random"), turns);
}

TEST_F(PlayTest, DemosAreAPureFunctionOfTheSeed) {
  DemoOptions options;
  options.count = 60;
  options.seed = 5;
  options.forget = {0, 0.5, 0.5, 0.5, 0.5, 0.5};
  const auto play = [&options] {
    std::string rows;
    EXPECT_TRUE(PlayDemos(*env_, options, [&rows](const DemoTurn& turn) {
                  absl::StrAppend(&rows, turn.prompt, turn.response,
                                  turn.executed, "\n");
                  return absl::OkStatus();
                }).ok());
    return rows;
  };
  const std::string first = play();
  EXPECT_EQ(play(), first);
  options.seed = 6;
  EXPECT_NE(play(), first);
}

TEST_F(PlayTest, LabelsOfDemosWithoutForgettingFollowFromThePrompt) {
  DemoOptions options;
  options.count = 600;
  std::map<std::string, std::string> labels;
  const auto counts = PlayDemos(*env_, options, [&](const DemoTurn& t) {
    const auto [it, fresh] = labels.emplace(t.prompt, t.response);
    EXPECT_EQ(it->second, t.response) << t.prompt;
    EXPECT_EQ(t.response[0], ' ');
    EXPECT_TRUE(absl::EndsWith(t.prompt, "\n>")) << t.prompt;
    return absl::OkStatus();
  });
  ASSERT_TRUE(counts.ok()) << counts.status();
  EXPECT_EQ(counts->episodes, 600);
  EXPECT_EQ(counts->forgetful, 0);
  // The noise costs some: without it all are won.
  EXPECT_GT(counts->won, 480);
  EXPECT_LT(counts->won, 600);
}

TEST_F(PlayTest, GrowingDemosAppendWhatWasSeenAndSayWhatWasDone) {
  DemoOptions options;
  options.count = 60;
  options.layout = "growing";
  std::map<int, std::vector<DemoTurn>> demos;
  ASSERT_TRUE(PlayDemos(*env_, options, [&](const DemoTurn& turn) {
                demos[turn.demo].push_back(turn);
                return absl::OkStatus();
              }).ok());
  ASSERT_EQ(demos.size(), 60);
  int noise = 0, turns = 0;
  for (const auto& [demo, play] : demos) {
    for (size_t i = 0; i < play.size(); ++i, ++turns) {
      EXPECT_EQ(absl::StartsWith(play[i].prompt, "Task: "), i == 0);
      EXPECT_TRUE(absl::EndsWith(play[i].prompt, "\n>"));
      noise += play[i].executed != play[i].response;
    }
  }
  EXPECT_GT(noise, turns / 20);
  EXPECT_LT(noise, turns / 5);
}

TEST_F(PlayTest, ForgetfulDemosEndWithLooksAndWithoutSuccess) {
  DemoOptions options;
  options.count = 300;
  options.noise = 0;
  options.look_rows = 3;
  options.forget = {1, 1, 1, 1, 1, 1};
  std::vector<std::string> responses;
  const auto counts = PlayDemos(*env_, options, [&](const DemoTurn& turn) {
    responses.push_back(turn.response);
    return absl::OkStatus();
  });
  ASSERT_TRUE(counts.ok());
  EXPECT_EQ(counts->won, 0);
  EXPECT_EQ(counts->forgetful, 300);
  EXPECT_EQ(std::count(responses.begin(), responses.end(), " look"), 900);
}

TEST_F(PlayTest, DemosNeedThePromptThatTheExpertReads) {
  envs::AlfworldOptions options;
  options.data = dir_;
  options.prompt_set = "paper";
  const auto env = envs::AlfworldEnvironment::Open(options);
  ASSERT_TRUE(env.ok());
  const auto counts =
      PlayDemos(**env, {}, [](const auto&) { return absl::OkStatus(); });
  EXPECT_TRUE(absl::StrContains(counts.status().message(), "prompt_set"))
      << counts.status();
}

TEST(MakePolicy, NamesWhatItKnows) {
  EXPECT_EQ(MakePolicy("greedy", 0).status().message(),
            "policy: found greedy, expected random or planner");
}

TEST(FullSize, PlannerWinsInAllKindsOfRoom) {
  GeneratorOptions options = FullSize();
  options.games = {30, 6, 6};
  const absl::StatusOr<Collection> all = Generate(options);
  ASSERT_TRUE(all.ok()) << all.status();
  for (const Game& game : all->games) EXPECT_LE(game.expert_turns, 50);
}

}  // namespace
}  // namespace atod::games
