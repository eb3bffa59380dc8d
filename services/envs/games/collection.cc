#include "services/envs/games/collection.h"

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "services/envs/games/game_file.h"

namespace atod::games {
namespace {

using Json = nlohmann::ordered_json;
constexpr char kFormat[] = "atod-games-1";

std::string OptionsText(const GeneratorOptions& o) {
  const auto range = [](Range r) { return Json::array({r.low, r.high}); };
  Json json;
  json["seed"] = o.seed;
  for (size_t s = 0; s < kSplits; ++s)
    json[SplitName(static_cast<Split>(s))] = o.games[s];
  json["receptacles"] = range(o.receptacles);
  json["objects"] = range(o.objects);
  json["layouts"] = o.layouts;
  json["unseen_layouts"] = o.unseen_layouts;
  json["most_per_receptacle"] = o.most_per_receptacle;
  json["most_per_class"] = o.most_per_class;
  json["lamp"] = o.lamp;
  json["turns"] = o.turns;
  json["classes"] = o.full ? "full" : "small";
  return json.dump();
}

// Thousands of small files: no sync, the manifest that comes last has one.
absl::Status WritePlain(const std::string& path, const std::string& bytes) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  const bool written =
      file && std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  if ((file && std::fclose(file) != 0) || !written)
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot write"));
  return absl::OkStatus();
}

int PortableThings(const Game& game) {
  int count = 0;
  for (const Thing& x : game.things) count += x.kind != &Lamp();
  return count;
}

Json RowJson(const GameRow& row) {
  return {{"path", row.path},
          {"task_type", row.task_type},
          {"content_hash", row.content_hash},
          {"scene_hash", row.scene_hash},
          {"receptacles", row.receptacles},
          {"objects", row.objects},
          {"plan", row.plan},
          {"turns", row.turns}};
}

}  // namespace

absl::Status WriteCollection(const Collection& collection,
                             const std::string& dir) {
  const std::string options = OptionsText(collection.options);
  std::error_code ec;
  if (std::filesystem::exists(dir, ec) && !std::filesystem::is_empty(dir, ec)) {
    const absl::StatusOr<Manifest> there = ReadManifest(dir);
    if (there.ok() && there->options == options) return absl::OkStatus();
    return absl::AlreadyExistsError(absl::StrCat(
        dir, ": found ",
        there.ok() ? "games of other options" : "a folder with other files",
        ", expected an empty folder"));
  }

  Json splits = Json::object();
  for (size_t s = 0; s < kSplits; ++s)
    splits[SplitName(static_cast<Split>(s))] = Json::array();
  for (const Game& game : collection.games) {
    const std::string folder = GameFolder(game);
    const std::string path = absl::StrCat(folder, "/game.tw-pddl");
    const std::string text = GameFileText(game);
    ATOD_RETURN_IF_ERROR(MakeDirs(absl::StrCat(dir, "/", folder)));
    ATOD_RETURN_IF_ERROR(WritePlain(absl::StrCat(dir, "/", path), text));
    ATOD_RETURN_IF_ERROR(WritePlain(
        absl::StrCat(dir, "/", folder, "/traj_data.json"), TrajDataText(game)));
    splits[SplitName(game.split)].push_back(
        RowJson({.path = path,
                 .task_type = TaskTypeName(game.type),
                 .content_hash = HashHex(text),
                 .scene_hash = game.scene_hash,
                 .receptacles = static_cast<int>(game.room->furniture.size()),
                 .objects = PortableThings(game),
                 .plan = static_cast<int>(game.walkthrough.size()),
                 .turns = game.expert_turns}));
  }
  Json manifest;
  manifest["format"] = kFormat;
  manifest["options"] = Json::parse(options);
  manifest["layouts_new_to_train"] = collection.new_layouts;
  manifest["splits"] = std::move(splits);
  return WriteFileAtomic(absl::StrCat(dir, "/manifest.json"),
                         manifest.dump(1) + "\n");
}

absl::StatusOr<Manifest> ReadManifest(const std::string& dir) {
  const std::string path = absl::StrCat(dir, "/manifest.json");
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.value("format", Json()) != kFormat)
    return BadInput({.file = path,
                     .field = "format",
                     .found = json.is_object()
                                  ? json.value("format", Json()).dump()
                                  : "no JSON object",
                     .expected = absl::StrCat("\"", kFormat, "\"")});
  Manifest manifest;
  // Every field below was written by WriteCollection; a file edited by hand
  // may lack one.
  try {
    manifest.options = json.at("options").dump();
    manifest.layouts_new_to_train = json.at("layouts_new_to_train");
    for (const auto& [split, rows] : json.at("splits").items())
      for (const Json& row : rows)
        manifest.splits[split].push_back(
            {.path = row.at("path"),
             .task_type = row.at("task_type"),
             .content_hash = row.at("content_hash"),
             .scene_hash = row.at("scene_hash"),
             .receptacles = row.at("receptacles"),
             .objects = row.at("objects"),
             .plan = row.at("plan"),
             .turns = row.at("turns")});
  } catch (const Json::exception& e) {
    return BadInput({.file = path,
                     .field = "splits",
                     .found = e.what(),
                     .expected = "what `atod games` wrote"});
  }
  return manifest;
}

}  // namespace atod::games
