#include "services/cli/games_commands.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/printable.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/prompt/prompt_spec.h"
#include "nlohmann/json.hpp"
#include "services/cli/command.h"
#include "services/envs/alfworld/alfworld_environment.h"
#include "services/envs/alfworld/game_folder.h"
#include "services/envs/alfworld/world.h"
#include "services/envs/games/collection.h"
#include "services/envs/games/demos.h"
#include "services/envs/games/generator.h"

namespace atod::cli {
namespace {

struct GamesFlags {
  std::string out;
  uint64_t seed = 0;
  std::optional<int> train, valid_seen, valid_unseen, layouts, unseen_layouts,
      most_per_receptacle, most_per_class, turns;
  std::string receptacles, objects, classes = "small";
};

// "5-7" or "6".
absl::Status ParseRange(const std::string& flag, const std::string& text,
                        games::Range& range) {
  if (text.empty()) return absl::OkStatus();
  const std::vector<std::string> parts = absl::StrSplit(text, '-');
  if (parts.size() <= 2 && absl::SimpleAtoi(parts.front(), &range.low) &&
      absl::SimpleAtoi(parts.back(), &range.high))
    return absl::OkStatus();
  return BadInput(
      {.file = "games", .field = flag, .found = text, .expected = "MIN-MAX"});
}

absl::StatusOr<int> RunGames(const GamesFlags& flags) {
  if (flags.out.empty())
    return BadInput({.file = "games",
                     .field = "--out",
                     .found = "nothing",
                     .expected = "the folder to write to"});
  games::GeneratorOptions options =
      flags.classes == "full" ? games::FullSize() : games::GeneratorOptions();
  options.seed = flags.seed;
  options.games[0] = flags.train.value_or(options.games[0]);
  options.games[1] = flags.valid_seen.value_or(options.games[1]);
  options.games[2] = flags.valid_unseen.value_or(options.games[2]);
  options.layouts = flags.layouts.value_or(options.layouts);
  options.unseen_layouts =
      flags.unseen_layouts.value_or(options.unseen_layouts);
  options.most_per_receptacle =
      flags.most_per_receptacle.value_or(options.most_per_receptacle);
  options.most_per_class =
      flags.most_per_class.value_or(options.most_per_class);
  options.turns = flags.turns.value_or(options.turns);
  ATOD_RETURN_IF_ERROR(
      ParseRange("--receptacles", flags.receptacles, options.receptacles));
  ATOD_RETURN_IF_ERROR(ParseRange("--objects", flags.objects, options.objects));
  ATOD_ASSIGN_OR_RETURN(const games::Collection collection,
                        games::Generate(options));
  ATOD_RETURN_IF_ERROR(games::WriteCollection(collection, flags.out));
  std::printf("%s: %zu games (train %d, valid_seen %d, valid_unseen %d)\n",
              flags.out.c_str(), collection.games.size(), options.games[0],
              options.games[1], options.games[2]);
  return 0;
}

struct DemoFlags {
  std::string games, out;
  games::DemoOptions options;
  double forget = 0;
  std::array<std::optional<double>, games::kTaskTypes> forget_type;
};

// Flag suffixes in the order of TaskType.
constexpr std::array<const char*, games::kTaskTypes> kTypeFlags = {
    "pick", "look", "clean", "heat", "cool", "two"};

// JSON lines for atod sft: one a turn, or one an episode where that grows.
class DemoRows {
 public:
  explicit DemoRows(std::string_view layout) : grows_(layout == kGrowing) {}

  void Add(const games::DemoTurn& turn) {
    nlohmann::ordered_json row;
    row["prompt"] = turn.prompt;
    // A growing episode shows what was done. Where that was not the expert's
    // choice it is no lesson.
    row["response"] = grows_ ? turn.executed : turn.response;
    if (!grows_) return Line(row);
    if (turn.demo != demo_) Flush();
    demo_ = turn.demo;
    if (turn.executed != turn.response) row["train"] = false;
    turns_.push_back(std::move(row));
  }
  std::string Text() {
    Flush();
    return std::move(text_);
  }

 private:
  void Line(const nlohmann::ordered_json& row) {
    absl::StrAppend(&text_, row.dump(), "\n");
  }
  void Flush() {
    const bool taught =
        std::any_of(turns_.begin(), turns_.end(),
                    [](const auto& turn) { return !turn.contains("train"); });
    if (taught) Line({{"turns", turns_}});
    turns_ = nlohmann::ordered_json::array();
  }

  const bool grows_;
  int demo_ = 0;
  nlohmann::ordered_json turns_ = nlohmann::ordered_json::array();
  std::string text_;
};

absl::StatusOr<int> RunDemos(const DemoFlags& flags) {
  games::DemoOptions options = flags.options;
  for (size_t t = 0; t < games::kTaskTypes; ++t) {
    // The plain task has no heart to forget, unless it is asked for.
    const bool pick = static_cast<games::TaskType>(t) == games::TaskType::kPick;
    options.forget[t] = flags.forget_type[t].value_or(pick ? 0 : flags.forget);
  }
  envs::AlfworldOptions env_options;
  env_options.data = flags.games;
  env_options.prompt_set = "compact";
  env_options.max_turns = options.max_turns;
  ATOD_ASSIGN_OR_RETURN(const auto env,
                        envs::AlfworldEnvironment::Open(env_options));
  DemoRows rows(options.layout);
  ATOD_ASSIGN_OR_RETURN(
      const games::DemoCounts counts,
      games::PlayDemos(*env, options, [&rows](const games::DemoTurn& turn) {
        rows.Add(turn);
        return absl::OkStatus();
      }));
  ATOD_RETURN_IF_ERROR(WriteFileAtomic(flags.out, rows.Text()));
  std::printf("%s: %d demonstrations, %d rows, %d forgetful, %d won\n",
              flags.out.c_str(), counts.episodes, counts.rows, counts.forgetful,
              counts.won);
  return 0;
}

void AddDemos(Command games) {
  auto flags = std::make_shared<DemoFlags>();
  Command demos =
      games.Add("demos", "Record the planner's play as rows for atod sft",
                [flags] { return RunDemos(*flags); });
  demos.Arg("--games", flags->games, "what games --out wrote").Required();
  demos.Arg("--out", flags->out, "JSONL of prompt and response").Required();
  demos.Arg("--split", flags->options.split, "split to play");
  demos.Arg("--count", flags->options.count, "episodes").NonNegative();
  demos.Arg("--seed", flags->options.seed, "same seed, same rows")
      .WholeNumber();
  demos.Arg("--max-turns", flags->options.max_turns,
            "turn limit of an episode");
  demos
      .Arg("--layout", flags->options.layout,
           "windowed: a row a turn; growing: a row an episode")
      .OneOf({kWindowed, kGrowing});
  demos
      .Arg("--forget", flags->forget,
           "share of episodes whose expert leaves out the heart of "
           "the task, for all types but pick")
      .Range(0.0, 1.0);
  for (size_t t = 0; t < games::kTaskTypes; ++t)
    demos
        .Arg(absl::StrCat("--forget-", kTypeFlags[t]), flags->forget_type[t],
             absl::StrCat("the same for ", kTypeFlags[t], " alone"))
        .Range(0.0, 1.0);
  demos
      .Arg("--look-rows", flags->options.look_rows,
           "turns recorded after it gave up")
      .Positive();
  demos
      .Arg("--noise", flags->options.noise,
           "share of turns that execute a random command instead of "
           "the recorded one")
      .Range(0.0, 1.0);
  demos
      .Arg("--noise-admissible", flags->options.noise_admissible,
           "share of these that are admissible")
      .Range(0.0, 1.0);
}

// The counts are of the games that are there.
absl::Status CheckManifest(const games::Manifest& manifest,
                           const std::string& dir) {
  ATOD_ASSIGN_OR_RETURN(const envs::GameFolder folder, envs::FindGames(dir));
  std::map<std::string, std::string> hashes;  // by path below `dir`
  for (const envs::FoundGame& game : folder.games)
    hashes[std::filesystem::path(game.path).lexically_relative(dir).string()] =
        game.content_hash;
  size_t changed = 0;
  std::string first;
  for (const auto& [split, rows] : manifest.splits)
    for (const games::GameRow& row : rows) {
      const auto found = hashes.find(row.path);
      const bool same =
          found != hashes.end() && found->second == row.content_hash;
      if (found != hashes.end()) hashes.erase(found);
      if (same) continue;
      if (changed++ == 0) first = row.path;
    }
  if (changed == 0 && hashes.empty()) return absl::OkStatus();
  if (first.empty()) first = hashes.begin()->first;
  return BadInput(
      {dir + "/manifest.json", "splits", 0,
       absl::StrCat(changed, " games that are gone or changed, ", hashes.size(),
                    " that it does not name (", first, ")"),
       "the games of the folder"});
}

absl::StatusOr<int> RunStats(const std::string& dir) {
  ATOD_ASSIGN_OR_RETURN(const games::Manifest manifest,
                        games::ReadManifest(dir));
  const char* compat = std::getenv("ATOD_COMPAT_DATA");
  ATOD_ASSIGN_OR_RETURN(const std::string table,
                        games::StatisticsTable(manifest, compat ? compat : ""));
  ATOD_RETURN_IF_ERROR(CheckManifest(manifest, dir));
  std::fputs(table.c_str(), stdout);
  return 0;
}

// A game's solution must be what `games check` plays.
absl::Status CheckWalkthrough(const std::string& path) {
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  ATOD_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, path));
  const nlohmann::json walkthrough =
      json.value("walkthrough", nlohmann::json());
  bool good = walkthrough.is_null() || walkthrough.is_array();
  for (const nlohmann::json& command : walkthrough)
    good = good && command.is_string();
  if (good) return absl::OkStatus();
  return BadInput({path, "walkthrough", 0, JsonPreview(walkthrough),
                   "a list of commands, or none"});
}

// What keeps the server or the agent from playing this game to its end.
absl::Status CheckGame(const envs::FoundGame& found) {
  ATOD_ASSIGN_OR_RETURN(const std::shared_ptr<const envs::Game> game,
                        envs::LoadGame(found.path));
  ATOD_RETURN_IF_ERROR(CheckWalkthrough(found.path));
  envs::World world(game);
  ATOD_RETURN_IF_ERROR(world.Reset());
  if (world.won())
    return BadInput({found.path, "pddl_problem", 0,
                     "a goal that holds at the start",
                     "one that must be reached"});
  for (const std::string& command : game->walkthrough())
    ATOD_RETURN_IF_ERROR(world.Step(command));
  if (!game->walkthrough().empty() && !world.won())
    return BadInput({found.path, "walkthrough", 0, "commands that do not win",
                     "a way to the goal"});
  return absl::OkStatus();
}

absl::StatusOr<int> RunCheck(const std::string& dir) {
  ATOD_ASSIGN_OR_RETURN(const envs::GameFolder folder, envs::FindGames(dir));
  if (folder.games.empty() && folder.left_out.empty())
    return BadInput({dir, "", 0, "no game", "*.tw-pddl files"});
  int good = 0;
  for (const envs::LeftOut& task : folder.left_out)
    std::printf("%s/%s: %s\n", dir.c_str(), task.path.c_str(),
                OneLine(task.reason).c_str());
  int bad = static_cast<int>(folder.left_out.size());
  for (const envs::FoundGame& game : folder.games) {
    const absl::Status status = CheckGame(game);
    if (status.ok()) {
      ++good;
      continue;
    }
    ++bad;
    std::printf(
        "%s\n",
        OneLine(std::string(WithFile(status, game.path).message())).c_str());
  }
  std::printf("games: %d good, %d bad\n", good, bad);
  return bad > 0 ? 1 : 0;
}

}  // namespace

void AddGamesCommands(Command app) {
  auto flags = std::make_shared<GamesFlags>();
  Command games =
      app.Add("games", "Generate household games in ALFWorld's file format",
              [flags] { return RunGames(*flags); });
  games.Arg("--out", flags->out, "folder to write to");
  games.Arg("--seed", flags->seed, "same seed, same games").WholeNumber();
  games.Arg("--train", flags->train, "games of split train");
  games.Arg("--valid-seen", flags->valid_seen,
            "games of valid_seen: train layouts, new objects");
  games.Arg("--valid-unseen", flags->valid_unseen,
            "games of valid_unseen: other layouts");
  games.Arg("--receptacles", flags->receptacles,
            "MIN-MAX pieces of furniture a room");
  games.Arg("--objects", flags->objects, "MIN-MAX things a room");
  games.Arg("--layouts", flags->layouts, "train layouts");
  games.Arg("--unseen-layouts", flags->unseen_layouts,
            "other layouts, for valid_unseen");
  games.Arg("--most-per-receptacle", flags->most_per_receptacle,
            "most things in one piece of furniture at the start");
  games.Arg("--most-per-class", flags->most_per_class,
            "most things of one class");
  games.Arg("--turns", flags->turns,
            "leave out games that the planner cannot win in so many "
            "turns");
  games
      .Arg("--classes", flags->classes,
           "small: one kind of room, 11 classes of things; full: "
           "kitchens, living rooms, bedrooms, bathrooms of about "
           "ALFWorld's size")
      .OneOf({"small", "full"});

  AddDemos(games);

  auto dir = std::make_shared<std::string>();
  Command stats = games.Add("stats", "Count what a folder of games holds",
                            [dir] { return RunStats(*dir); });
  stats.Arg("DIR", *dir, "what games --out wrote").Required();

  auto games_dir = std::make_shared<std::string>();
  Command check = games.Add(
      "check",
      "Load every game of a folder as the server does, play what it records as "
      "its solution, and name what is broken or would be left out",
      [games_dir] { return RunCheck(*games_dir); });
  check.Arg("DIR", *games_dir, "folder with a sub-folder a split, or one game")
      .Required();
}

}  // namespace atod::cli
