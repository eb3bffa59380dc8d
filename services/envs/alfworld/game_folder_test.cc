#include "services/envs/alfworld/game_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::envs {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kGame[] =
    R"({"pddl_domain": "d", "grammar": "g", "pddl_problem": "p", )"
    R"("solvable": true, "task_type": "pick\u005fone", "n": [{"solvable": 0}]})";

class GameFolderTest : public ::testing::Test {
 protected:
  GameFolderTest()
      : root_(fs::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  ~GameFolderTest() override { fs::remove_all(root_); }

  void Write(const fs::path& path, const std::string& text = kGame) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  GameFolder Find() {
    absl::StatusOr<GameFolder> found = FindGames(root_.string());
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? *std::move(found) : GameFolder();
  }
  // split:task
  static std::vector<std::string> Games(const GameFolder& folder) {
    std::vector<std::string> out;
    for (const FoundGame& g : folder.games)
      out.push_back(g.split + ":" + g.task_id);
    return out;
  }
  static std::string Reason(const GameFolder& folder, const std::string& path) {
    for (const LeftOut& l : folder.left_out)
      if (l.path.ends_with(path)) return l.reason;
    return "";
  }

  const fs::path root_;
};

TEST_F(GameFolderTest, LinksAndLoopsAddNothing) {
  Write("train/a.tw-pddl");
  Write("valid/b.tw-pddl", std::string(kGame) + " ");
  fs::create_directory_symlink("..", root_ / "train/loop");
  fs::create_directory_symlink(".", root_ / "train/self");
  fs::create_directory_symlink("../valid", root_ / "train/other");
  fs::create_symlink("../valid/b.tw-pddl", root_ / "train/b.tw-pddl");
  fs::create_symlink("a.tw-pddl", root_ / "train/again.tw-pddl");
  fs::create_symlink("nowhere", root_ / "train/gone.tw-pddl");
  fs::create_hard_link(root_ / "train/a.tw-pddl", root_ / "valid/hard.tw-pddl");
  fs::create_directory_symlink("train", root_ / "copy");
  fs::create_directory_symlink(".", root_ / "all");
  const GameFolder found = Find();
  EXPECT_THAT(Games(found), ElementsAre("train:a", "valid:b"));
  EXPECT_THAT(Reason(found, "train/loop"), HasSubstr("leads out of the split"));
  EXPECT_THAT(Reason(found, "train/other"), HasSubstr("leads out"));
  EXPECT_THAT(Reason(found, "train/b.tw-pddl"), HasSubstr("leads out"));
  EXPECT_THAT(Reason(found, "again.tw-pddl"), HasSubstr("same file as"));
  EXPECT_THAT(Reason(found, "gone.tw-pddl"), HasSubstr("link to nothing"));
  EXPECT_THAT(Reason(found, "hard.tw-pddl"), HasSubstr("train/a.tw-pddl"));
  EXPECT_THAT(Reason(found, "copy"), HasSubstr("own split"));
  EXPECT_THAT(Reason(found, "all"), HasSubstr("own split"));
}

TEST_F(GameFolderTest, OneTaskHasOneFile) {
  Write("a.tw-pddl");
  Write("games/a.tw-pddl", std::string(kGame) + " ");
  const GameFolder found = Find();
  EXPECT_THAT(Games(found), ElementsAre("games:a"));
  ASSERT_EQ(found.left_out.size(), 1u);
  EXPECT_THAT(found.left_out[0].reason, HasSubstr("the same task as"));
}

TEST_F(GameFolderTest, ASplitMayLieElsewhere) {
  const fs::path away = root_.string() + "_away";
  fs::create_directories(away);
  std::ofstream(away / "x.tw-pddl") << kGame;
  fs::create_directory_symlink(away, root_ / "train");
  EXPECT_THAT(Games(Find()), ElementsAre("train:x"));
  fs::remove_all(away);
}

TEST_F(GameFolderTest, HiddenFilesAreNamedAndNotPlayed) {
  Write("train/a.tw-pddl");
  Write("train/._a.tw-pddl", "apple");
  Write("train/.cache/b.tw-pddl");
  Write(".trash/c.tw-pddl");
  const GameFolder found = Find();
  EXPECT_THAT(Games(found), ElementsAre("train:a"));
  EXPECT_EQ(Reason(found, "._a.tw-pddl"), "a hidden file");
  EXPECT_EQ(Reason(found, "b.tw-pddl"), "in a hidden folder");
  EXPECT_EQ(Reason(found, "c.tw-pddl"), "in a hidden folder");
}

TEST_F(GameFolderTest, BrokenFilesAreNamedWithTheirFault) {
  const std::string game = kGame;
  Write("train/empty.tw-pddl", "");
  Write("train/half.tw-pddl", game.substr(0, game.size() / 2));
  Write("train/list.tw-pddl", "[1]");
  Write("train/lacks.tw-pddl", R"({"pddl_domain": "d", "grammar": "g"})");
  Write("train/twice.tw-pddl", R"({"pddl_domain": "a", "pddl_domain": "b"})");
  Write("train/no.tw-pddl",
        R"({"pddl_domain": "", "grammar": "", "pddl_problem": "", )"
        R"("solvable": false})");
  Write("train/bytes.tw-pddl", "{\"pddl_domain\": \"\xff\"}");
  fs::create_directories(root_ / "train/folder.tw-pddl");
  fs::create_directory_symlink("train", root_ / "link.tw-pddl");
  ASSERT_EQ(mkfifo((root_ / "train/pipe.tw-pddl").c_str(), 0600), 0);
  const GameFolder found = Find();
  EXPECT_THAT(Games(found), IsEmpty());
  EXPECT_EQ(Reason(found, "folder.tw-pddl"), "a folder, no file");
  EXPECT_EQ(Reason(found, "link.tw-pddl"), "a folder, no file");
  EXPECT_EQ(Reason(found, "pipe.tw-pddl"), "no regular file");
  EXPECT_THAT(Reason(found, "empty.tw-pddl"), HasSubstr("an empty file"));
  EXPECT_THAT(Reason(found, "half.tw-pddl"),
              HasSubstr("line 1: found an early end"));
  EXPECT_THAT(Reason(found, "list.tw-pddl"), HasSubstr("one JSON object"));
  EXPECT_THAT(Reason(found, "lacks.tw-pddl"), HasSubstr("pddl_problem"));
  EXPECT_THAT(Reason(found, "bytes.tw-pddl"), HasSubstr("JSON"));
  EXPECT_THAT(Reason(found, "twice.tw-pddl"), HasSubstr("the key again"));
  EXPECT_THAT(Reason(found, "no.tw-pddl"), HasSubstr("not solvable"));
  EXPECT_EQ(Reason(found, "pipe.tw-pddl"), "no regular file");
}

TEST_F(GameFolderTest, NamesThatAreNoTextAreLeftOut) {
  Write("train/a.tw-pddl");
  Write("train/b\xff.tw-pddl");
  Write("tr\xfe/c.tw-pddl");
  const GameFolder found = Find();
  EXPECT_THAT(Games(found), ElementsAre("train:a"));
  ASSERT_EQ(found.left_out.size(), 2u);
  for (const LeftOut& l : found.left_out) {
    EXPECT_THAT(l.reason, HasSubstr("UTF-8"));
    EXPECT_THAT(l.path, HasSubstr("\\x"));
  }
}

TEST_F(GameFolderTest, ALFWorldsRuleSaysWhyAGameIsNotUsed) {
  const std::string good = R"({"task_type": "pick_two_obj_and_place"})";
  Write("train/used/game.tw-pddl");
  Write("train/used/traj_data.json", good);
  Write("train/sliced/AppleSliced.tw-pddl", std::string(kGame) + " ");
  Write("train/sliced/traj_data.json", good);
  Write("train/type/game.tw-pddl", std::string(kGame) + "  ");
  Write("train/type/traj_data.json", R"({"task_type": "other"})");
  Write("train/record/game.tw-pddl", std::string(kGame) + "   ");
  Write("train/record/traj_data.json", "{");
  const GameFolder found = Find();
  EXPECT_THAT(Games(found), ElementsAre("train:used/game"));
  EXPECT_EQ(found.games[0].category, "pick_two_obj_and_place");
  EXPECT_THAT(Reason(found, "AppleSliced.tw-pddl"), HasSubstr("Sliced"));
  EXPECT_THAT(Reason(found, "type/game.tw-pddl"), HasSubstr("'other'"));
  EXPECT_THAT(Reason(found, "record/game.tw-pddl"),
              HasSubstr("traj_data.json:1: found"));
}

TEST_F(GameFolderTest, EscapesInATaskTypeAreDecoded) {
  Write("train/a.tw-pddl");
  EXPECT_EQ(Find().games[0].category, "pick_one");
}

TEST_F(GameFolderTest, AFileThatIsNamedIsUsed) {
  Write("movable/a.tw-pddl");
  Write("movable/traj_data.json", R"({"task_type": "other"})");
  const auto found = FindGames((root_ / "movable/a.tw-pddl").string());
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(Games(*found), ElementsAre("games:a"));
}

TEST_F(GameFolderTest, NoFolderIsAnError) {
  EXPECT_THAT(
      std::string(FindGames((root_ / "none").string()).status().message()),
      HasSubstr("env.data"));
  Write("file", "x");
  EXPECT_THAT(
      std::string(FindGames((root_ / "file").string()).status().message()),
      HasSubstr("file:1: found"));
}

}  // namespace
}  // namespace atod::envs
