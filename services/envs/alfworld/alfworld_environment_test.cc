#include "services/envs/alfworld/alfworld_environment.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/envs/games/game_file.h"
#include "services/envs/games/generator.h"

namespace atod::envs {
namespace {

using ::testing::HasSubstr;

namespace fs = std::filesystem;

class AlfworldEnvironmentTest : public ::testing::Test {
 protected:
  AlfworldEnvironmentTest()
      : folder_(
            fs::path(::testing::TempDir()) /
            ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(folder_);
    collection_ = *games::Generate({.seed = 4, .games = {6, 2, 2}});
    options_.data = folder_.string();
    options_.prompt_set = "compact";
  }
  ~AlfworldEnvironmentTest() override { fs::remove_all(folder_); }

  void Write(const std::string& path, const std::string& text) {
    const fs::path full = folder_ / path;
    ASSERT_TRUE(MakeDirs(full.parent_path().string()).ok());
    ASSERT_TRUE(WriteFileAtomic(full.string(), text).ok());
  }
  void WriteGame(const std::string& path, size_t game = 0) {
    Write(path, games::GameFileText(collection_.games[game]));
  }
  std::unique_ptr<AlfworldEnvironment> Open() {
    auto env = AlfworldEnvironment::Open(options_);
    EXPECT_TRUE(env.ok()) << env.status();
    return *std::move(env);
  }

  const fs::path folder_;
  games::Collection collection_;
  AlfworldOptions options_;
};

TEST_F(AlfworldEnvironmentTest, SplitsAreFoldersAndTasksPaths) {
  WriteGame("train/b/pick_and_place_simple-X/trial/game.tw-pddl", 0);
  WriteGame("train/a.tw-pddl", 1);
  WriteGame("valid_seen/c.tw-pddl", 2);
  Write("train/notes.txt", "no game");
  const auto env = Open();
  const EnvDescription& d = env->description();
  ASSERT_EQ(d.splits.size(), 2u);
  EXPECT_EQ(d.splits[0].name, "train");
  EXPECT_EQ(d.splits[0].size, 2u);
  EXPECT_EQ(d.splits[1].size, 1u);
  EXPECT_NE(d.splits[0].content_hash, d.splits[1].content_hash);
  EXPECT_EQ(env->GetTask("train", 0)->task_id, "a");
  EXPECT_EQ(env->GetTask("train", 1)->task_id,
            "b/pick_and_place_simple-X/trial/game");
  EXPECT_EQ(env->GetTask("train", 1)->category, "pick_and_place_simple");
  EXPECT_TRUE(absl::IsNotFound(env->GetTask("train", 2).status()));
  EXPECT_TRUE(absl::IsNotFound(env->GetTask("test", 0).status()));
  EXPECT_TRUE(absl::IsNotFound(
      env->Start({.split = "train", .task_id = "c"}).status()));
}

TEST_F(AlfworldEnvironmentTest, HashesFollowTheContentNotThePath) {
  WriteGame("train/a.tw-pddl", 0);
  const std::string before = Open()->description().splits[0].content_hash;
  fs::rename(folder_ / "train/a.tw-pddl", folder_ / "train/z.tw-pddl");
  EXPECT_EQ(Open()->description().splits[0].content_hash, before);
  WriteGame("train/z.tw-pddl", 1);
  EXPECT_NE(Open()->description().splits[0].content_hash, before);
}

TEST_F(AlfworldEnvironmentTest, AlfredRecordsDecideWhichGamesAreUsed) {
  const std::string good = games::GameFileText(collection_.games[0]);
  auto add = [&](const std::string& name, const std::string& game,
                 const std::string& type) {
    Write(absl::StrCat("train/", name, "/game.tw-pddl"), game);
    Write(absl::StrCat("train/", name, "/traj_data.json"),
          absl::StrCat(R"({"x": ["task_type\""], "task_type": ")", type,
                       R"("})"));
  };
  std::string unsolvable = good;
  unsolvable.replace(unsolvable.find("\"solvable\""), 10, "\"solved\"");
  add("used", good, "pick_two_obj_and_place");
  add("unsolvable", unsolvable, "pick_two_obj_and_place");
  add("movable", good, "pick_two_obj_and_place");
  add("AppleSliced", good, "pick_two_obj_and_place");
  add("other", good, "pick_and_place_with_movable_recep");
  const auto env = Open();
  ASSERT_EQ(env->description().splits[0].size, 1u);
  EXPECT_EQ(env->GetTask("train", 0)->task_id, "used/game");
  EXPECT_EQ(env->GetTask("train", 0)->category, "pick_two_obj_and_place");
}

TEST_F(AlfworldEnvironmentTest, AWalkthroughEarnsTheReward) {
  WriteGame("train/a.tw-pddl");
  options_.success_reward = 7;
  auto episode = Open()->Start({.split = "train", .task_id = "a"});
  ASSERT_TRUE(episode.ok()) << episode.status();
  const Observation& start = (*episode)->observation();
  EXPECT_EQ(start.task, collection_.games[0].sentence + ".");
  EXPECT_EQ(start.fields.at("text"), "start.");
  EXPECT_EQ(start.turn_index, 0u);
  StepResult last;
  for (const std::string& command : collection_.games[0].walkthrough) {
    EXPECT_FALSE(last.observation.done);
    last = (*episode)->StepText(" " + command);
    EXPECT_TRUE(last.action_valid && last.action_admissible) << command;
    EXPECT_EQ(last.executed_action, command);
  }
  EXPECT_TRUE(last.observation.done && last.observation.success);
  EXPECT_EQ(last.observation.done_reason, DoneReason::kWon);
  EXPECT_EQ(last.observation.reward, 7);
  EXPECT_EQ(last.observation.task_score, 1);
  const StepResult after = (*episode)->StepText("look");
  EXPECT_EQ(after.observation.turn_index, last.observation.turn_index);
}

TEST_F(AlfworldEnvironmentTest, TheTurnLimitEndsWithoutReward) {
  WriteGame("train/a.tw-pddl");
  auto episode =
      Open()->Start({.split = "train", .task_id = "a", .max_turns = 2});
  ASSERT_TRUE(episode.ok());
  EXPECT_FALSE((*episode)->StepText("").observation.done);
  const StepResult last = (*episode)->StepText("jump");
  EXPECT_TRUE(last.action_valid);
  EXPECT_FALSE(last.action_admissible);
  EXPECT_EQ(last.observation.text, "Nothing happens.");
  EXPECT_EQ(last.observation.done_reason, DoneReason::kLimit);
  EXPECT_EQ(last.observation.reward, 0);
}

TEST_F(AlfworldEnvironmentTest, ThePaperPromptTakesTaggedActions) {
  WriteGame("train/a.tw-pddl");
  options_.prompt_set = "paper";
  options_.history_length = 5;
  const auto env = Open();
  EXPECT_EQ(env->description().prompt.window, 5u);
  auto episode = env->Start({.split = "train", .task_id = "a"});
  ASSERT_TRUE(episode.ok());
  const StepResult step =
      (*episode)->StepText("<think>hm</think><action>Look</action>");
  EXPECT_TRUE(step.action_valid && step.action_admissible);
  EXPECT_EQ(step.executed_action, "look");
}

TEST_F(AlfworldEnvironmentTest, ABrokenGameFailsItsEpisodeAndNamesTheFile) {
  WriteGame("train/good.tw-pddl");
  Write("train/bad.tw-pddl",
        R"({"pddl_domain": "(define", "grammar": "", "pddl_problem": ""})");
  const auto env = Open();
  const auto bad = env->Start({.split = "train", .task_id = "bad"});
  EXPECT_TRUE(absl::IsInvalidArgument(bad.status()));
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("bad.tw-pddl"));
  EXPECT_TRUE(env->Start({.split = "train", .task_id = "good"}).ok());
}

TEST_F(AlfworldEnvironmentTest, AFolderWithoutGamesIsAnError) {
  EXPECT_FALSE(AlfworldEnvironment::Open(options_).ok());
  Write("train/notes.txt", "no game");
  EXPECT_THAT(
      std::string(AlfworldEnvironment::Open(options_).status().message()),
      HasSubstr("no usable game"));
  WriteGame("train/a.tw-pddl");
  options_.prompt_set = "fancy";
  EXPECT_THAT(
      std::string(AlfworldEnvironment::Open(options_).status().message()),
      HasSubstr("env.prompt_set"));
}

TEST_F(AlfworldEnvironmentTest, FewCachedGamesServeMany) {
  for (size_t i = 0; i < 6; ++i)
    WriteGame(absl::StrCat("train/", i, ".tw-pddl"), i);
  options_.cached_games = 2;
  const auto env = Open();
  for (int round = 0; round < 3; ++round)
    for (size_t i = 0; i < 6; ++i) {
      auto episode = env->Start({.split = "train", .task_id = absl::StrCat(i)});
      ASSERT_TRUE(episode.ok());
      EXPECT_EQ((*episode)->observation().task,
                collection_.games[i].sentence + ".");
    }
}

}  // namespace
}  // namespace atod::envs
