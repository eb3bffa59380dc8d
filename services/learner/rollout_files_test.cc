// The files that shape training rollouts.
#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/skill_bank.h"
#include "services/learner/stored_episodes.h"

namespace atod::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Write(const std::string& text) {
  const std::string path = testing::TempDir() + "rollout_file.json";
  EXPECT_TRUE(WriteFileAtomic(path, text).ok());
  return path;
}

std::string Episode(const std::string& task, const std::string& actions,
                    const std::string& hash = "h") {
  return R"({"split": "train", "content_hash": ")" + hash +
         R"(", "task_id": ")" + task + R"(", "actions": )" + actions + "}\n";
}

std::string EpisodeRefusal(const std::string& text) {
  return std::string(
      StoredEpisodes::Load(Write(text), "train", "h", 3).status().message());
}

TEST(StoredEpisodes, KeepTheShortestEpisodeOfATask) {
  const auto episodes = StoredEpisodes::Load(
      Write(Episode("a", R"(["look", "go", "take"])") +
            Episode("b", R"(["open"])") + Episode("a", R"(["go", "take"])") +
            Episode("a", R"(["fly", "take"])")),
      "train", "h", 3);
  ASSERT_TRUE(episodes.ok()) << episodes.status();
  EXPECT_EQ(episodes->size(), 2u);
  EXPECT_THAT(episodes->ActionsOf("a"), ElementsAre("go", "take"));
  EXPECT_THAT(episodes->ActionsOf("b"), ElementsAre("open"));
  EXPECT_THAT(episodes->ActionsOf("c"), IsEmpty());
}

TEST(StoredEpisodes, RefuseOtherGamesAndBrokenLinesByLine) {
  const std::string good = Episode("a", R"(["go"])");
  EXPECT_THAT(EpisodeRefusal(good + Episode("b", R"(["go"])", "other")),
              HasSubstr(":2: content_hash: found \"other\", expected \"h\""));
  EXPECT_THAT(EpisodeRefusal(good + "{"), HasSubstr(":2"));
  EXPECT_THAT(EpisodeRefusal(Episode("a", "[]")),
              HasSubstr("actions: found [], expected a list"));
  EXPECT_THAT(EpisodeRefusal(Episode("a", "[1]")), HasSubstr("expected text"));
  EXPECT_THAT(EpisodeRefusal(Episode("a", R"(["a", "b", "c", "d"])")),
              HasSubstr("actions: found \"4 actions\", expected at most 3, "
                        "env.max_turns"));
  EXPECT_THAT(EpisodeRefusal(""), HasSubstr("episodes: found none"));
  EXPECT_FALSE(StoredEpisodes::Load("/nonexistent", "train", "h", 3).ok());
}

TEST(SkillBank, JoinsTheTextsOfACategoryAndThoseOfAll) {
  const auto bank = SkillBank::Load(
      Write(R"({"skills": [{"category": "heat", "text": "Use the microwave."},
                           {"text": "Look around."},
                           {"category": "cool", "text": "Use the fridge."}]})"));
  ASSERT_TRUE(bank.ok()) << bank.status();
  EXPECT_EQ(bank->TextFor("heat"), "Use the microwave.\nLook around.");
  EXPECT_EQ(bank->TextFor("clean"), "Look around.");
  EXPECT_THAT(
      std::string(
          SkillBank::Load(Write(R"({"skills": [{"category": "heat"}]})"))
              .status()
              .message()),
      HasSubstr("skills[0]: found {\"category\":\"heat\"}, expected an object "
                "with a text"));
  EXPECT_FALSE(SkillBank::Load(Write("[]")).ok());
}

}  // namespace
}  // namespace atod::learner
