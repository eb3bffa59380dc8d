#include "services/envs/games/generator.h"

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/envs/games/collection.h"
#include "services/envs/games/game_file.h"

namespace atod::games {
namespace {

GeneratorOptions Few(uint64_t seed) {
  GeneratorOptions options;
  options.seed = seed;
  options.games = {120, 60, 60};
  return options;
}

TEST(Generator, DrawsTheSixTaskTypesEquallyOften) {
  const absl::StatusOr<Collection> all = Generate(Few(1));
  ASSERT_TRUE(all.ok()) << all.status();
  std::map<std::pair<Split, TaskType>, int> counts;
  for (const Game& game : all->games) ++counts[{game.split, game.type}];
  EXPECT_EQ(counts.size(), kSplits * kTaskTypes);
  for (const auto& [key, count] : counts)
    EXPECT_EQ(count, key.first == Split::kTrain ? 20 : 10);
}

TEST(Generator, IsAPureFunctionOfItsOptions) {
  const absl::StatusOr<Collection> a = Generate(Few(7)), b = Generate(Few(7)),
                                   c = Generate(Few(8));
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  ASSERT_EQ(a->games.size(), b->games.size());
  int same = 0;
  for (size_t i = 0; i < a->games.size(); ++i) {
    EXPECT_EQ(GameFileText(a->games[i]), GameFileText(b->games[i]));
    same += a->games[i].scene_hash == c->games[i].scene_hash;
  }
  EXPECT_EQ(same, 0);
}

TEST(Generator, NeverShowsTheSameSceneTwice) {
  const absl::StatusOr<Collection> all = Generate(Few(2));
  ASSERT_TRUE(all.ok());
  std::set<std::string> scenes, folders;
  for (const Game& game : all->games) {
    scenes.insert(game.scene_hash);
    folders.insert(GameFolder(game));
  }
  EXPECT_EQ(scenes.size(), all->games.size());
  EXPECT_EQ(folders.size(), all->games.size());
}

TEST(Generator, KeepsUnseenFurnitureOutOfTrain) {
  const absl::StatusOr<Collection> all = Generate(Few(3));
  ASSERT_TRUE(all.ok());
  std::set<std::string> train;
  std::set<const Room*> seen_rooms, train_rooms;
  for (const Game& game : all->games) {
    if (game.split == Split::kTrain) {
      train.insert(Outline(*game.room));
      train_rooms.insert(game.room);
    }
    EXPECT_EQ(game.room->number > 60, game.split == Split::kValidUnseen);
  }
  for (const Game& game : all->games)
    EXPECT_NE(train.contains(Outline(*game.room)),
              game.split == Split::kValidUnseen)
        << Outline(*game.room);
}

TEST(Generator, KeepsTheBoundsOfTheRecipe) {
  const absl::StatusOr<Collection> all = Generate(Few(4));
  ASSERT_TRUE(all.ok());
  int lamps = 0, others = 0;
  for (const Game& game : all->games) {
    const size_t pieces = game.room->furniture.size();
    EXPECT_TRUE(pieces >= 5 && pieces <= 7) << pieces;
    std::map<size_t, int> load;
    std::map<const ThingClass*, int> classes;
    for (const Thing& x : game.things) {
      const Furniture& where = game.room->furniture[x.where];
      ++load[x.where];
      ++classes[x.kind];
      EXPECT_TRUE(Fits(*x.kind, *where.kind)) << x.id << " " << where.id;
      // Not won at the start, nor by a lucky move of nothing.
      EXPECT_FALSE(x.kind == game.target && where.kind == game.goal);
    }
    const int lamp = classes.contains(&Lamp()) ? classes[&Lamp()] : 0;
    const int portable = static_cast<int>(game.things.size()) - lamp;
    EXPECT_TRUE(portable >= 4 && portable <= 7) << portable;
    for (const auto& [where, count] : load) EXPECT_LE(count, 3);
    for (const auto& [kind, count] : classes) EXPECT_LE(count, 2);
    EXPECT_GE(classes[game.target], game.type == TaskType::kTwo ? 2 : 1);
    if (game.type == TaskType::kLook) {
      EXPECT_EQ(lamp, 1);
    } else {
      lamps += lamp;
      ++others;
      EXPECT_NE(game.goal->name, "Microwave");
    }
  }
  EXPECT_NEAR(static_cast<double>(lamps) / others, 0.3, 0.1);
}

TEST(Generator, FullSizeUsesAllKindsOfRoomWhereTheTaskBelongs) {
  GeneratorOptions options = FullSize();
  options.games = {60, 12, 12};
  const absl::StatusOr<Collection> all = Generate(options);
  ASSERT_TRUE(all.ok()) << all.status();
  std::set<RoomKind> kinds;
  for (const Game& game : all->games) {
    kinds.insert(game.room->kind);
    EXPECT_TRUE(Offers(game.room->kind, game.type));
  }
  EXPECT_EQ(kinds.size(), 4u);
}

TEST(Generator, SaysWhichKnobIsWrong) {
  GeneratorOptions options;
  options.objects = {7, 4};
  absl::Status status = Generate(options).status();
  EXPECT_EQ(status.message(),
            "games: objects: found 7-4, expected MIN-MAX with MIN >= 1");
  options = FullSize();
  options.layouts = 1;  // one kitchen: nowhere to examine things in light
  status = Generate(options).status();
  EXPECT_TRUE(absl::StrContains(status.message(), "look_at_obj_in_light"))
      << status;
}

// Otherwise tests/record_goldens.sh has to run.
TEST(Goldens, AreOfTheDomainAndGrammarOfToday) {
  int games = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator("tests/goldens")) {
    if (entry.path().extension() != ".tw-pddl") continue;
    const auto json = nlohmann::json::parse(*ReadFile(entry.path().string()));
    EXPECT_EQ(json["pddl_domain"], DomainText()) << entry.path();
    const std::string task = "Your task is to: ";
    const std::string grammar = json["grammar"];
    const size_t at = grammar.find(task) + task.size();
    EXPECT_EQ(
        absl::StrReplaceAll(
            GrammarText(),
            {{"UNKNOWN GOAL", grammar.substr(at, grammar.find('.', at) - at)}}),
        grammar)
        << entry.path();
    ++games;
  }
  EXPECT_GE(games, 9);
}

class CollectionTest : public testing::Test {
 protected:
  CollectionTest()
      : dir_(testing::TempDir() + "/games_" +
             testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(dir_);
  }
  ~CollectionTest() override { std::filesystem::remove_all(dir_); }
  const std::string dir_;
};

TEST_F(CollectionTest, ManifestNamesEveryFileWithTheHashOfItsBytes) {
  ASSERT_TRUE(WriteCollection(*Generate(Few(5)), dir_).ok());
  const absl::StatusOr<Manifest> manifest = ReadManifest(dir_);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  size_t files = 0;
  std::set<std::string> hashes;
  for (const auto& [split, rows] : manifest->splits)
    for (const GameRow& row : rows) {
      const absl::StatusOr<std::string> text = ReadFile(dir_ + "/" + row.path);
      ASSERT_TRUE(text.ok()) << text.status();
      EXPECT_EQ(HashHex(*text), row.content_hash);
      const auto json = nlohmann::json::parse(*text);
      EXPECT_EQ(json["walkthrough"].size(), static_cast<size_t>(row.plan));
      EXPECT_TRUE(json["solvable"].get<bool>());
      EXPECT_FALSE(
          absl::StrContains(json["grammar"].get<std::string>(), "UNKNOWN"));
      hashes.insert(row.content_hash);
      ++files;
    }
  EXPECT_EQ(files, 240u);
  EXPECT_EQ(hashes.size(), files);
  EXPECT_TRUE(StatisticsTable(*manifest, "").ok());
}

TEST_F(CollectionTest, IsWrittenOnceAndNeverMixedWithAnother) {
  ASSERT_TRUE(WriteCollection(*Generate(Few(5)), dir_).ok());
  EXPECT_TRUE(WriteCollection(*Generate(Few(5)), dir_).ok());
  EXPECT_EQ(WriteCollection(*Generate(Few(6)), dir_).code(),
            absl::StatusCode::kAlreadyExists);
}

}  // namespace
}  // namespace atod::games
