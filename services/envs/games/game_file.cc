#include "services/envs/games/game_file.h"

#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"

namespace atod::games {
namespace {

std::string KindId(const std::string& class_name) {
  return absl::AsciiStrToLower(absl::StrCat(class_name, "kind"));
}

std::string GoalText(const Game& game) {
  const std::string kind = KindId(game.target->name);
  if (game.type == TaskType::kLook)
    return absl::StrCat(
        "(exists (?a - agent ?x - thing ?lamp - thing ?f - furniture ?s - "
        "spot)\n    (and (carries ?a ?x) (is_thing ?x ",
        kind,
        ") (at ?a ?s) (stands ?f ?s)\n         (in ?lamp ?f) (lit ?lamp) "
        "(is_thing ?lamp ",
        KindId(Lamp().name), ")))");
  const std::string at_goal =
      absl::StrCat("(is_furniture ?f ", KindId(game.goal->name),
                   ") (in ?x ?f) (is_thing ?x ", kind, ")");
  if (game.type == TaskType::kTwo)
    return absl::StrCat(
        "(exists (?f - furniture ?x - thing ?y - thing)\n    (and ", at_goal,
        "\n         (in ?y ?f) (is_thing ?y ", kind, ") (not (= ?x ?y))))");
  std::string state;
  if (game.type == TaskType::kClean) state = " (washed ?x)";
  if (game.type == TaskType::kHeat) state = " (hot ?x)";
  if (game.type == TaskType::kCool) state = " (cold ?x)";
  return absl::StrCat("(exists (?f - furniture ?x - thing)\n    (and ", at_goal,
                      state, "))");
}

}  // namespace

std::string GameGrammar(const Game& game) {
  return absl::StrReplaceAll(GrammarText(), {{"UNKNOWN GOAL", game.sentence}});
}

std::string ProblemText(const Game& game) {
  const Room& room = *game.room;
  std::set<const FurnitureClass*> furniture_kinds;
  std::set<const ThingClass*> thing_kinds;
  std::string furniture, spots, things, init;

  for (const Furniture& f : room.furniture) {
    furniture_kinds.insert(f.kind);
    absl::StrAppend(&furniture, " ", f.id);
    absl::StrAppend(&spots, " ", f.spot);
    absl::StrAppend(&init, "    (is_furniture ", f.id, " ",
                    KindId(f.kind->name), ") (stands ", f.id, " ", f.spot, ")");
    if (f.kind->has_door) absl::StrAppend(&init, " (has_door ", f.id, ")");
    init += '\n';
  }
  for (const Thing& x : game.things) {
    thing_kinds.insert(x.kind);
    absl::StrAppend(&things, " ", x.id);
    absl::StrAppend(&init, "    (is_thing ", x.id, " ", KindId(x.kind->name),
                    ") (in ", x.id, " ", room.furniture[x.where].id, ")");
    const auto property = [&](bool has, const char* name) {
      if (has) absl::StrAppend(&init, " (", name, " ", x.id, ")");
    };
    const bool lamp = x.kind == &Lamp();
    property(!lamp, "portable");
    property(lamp, "switchable");
    property(x.kind->vessel, "vessel");
    property(x.kind->washable, "washable");
    property(x.kind->heatable, "heatable");
    property(x.kind->coolable, "coolable");
    property(x.kind->cuttable, "cuttable");
    init += '\n';
  }

  std::set<std::string> kinds;  // names, so that the order is stable
  std::string fits;
  for (const ThingClass& x : AllThings()) {
    if (!thing_kinds.contains(&x)) continue;
    kinds.insert(KindId(x.name));
    std::string line;
    for (const FurnitureClass& f : AllFurniture())
      if (furniture_kinds.contains(&f) && Fits(x, f))
        absl::StrAppend(&line, " (fits ", KindId(x.name), " ", KindId(f.name),
                        ")");
    if (x.blade) absl::StrAppend(&line, " (blade ", KindId(x.name), ")");
    if (!line.empty()) absl::StrAppend(&fits, "   ", line, "\n");
  }
  if (thing_kinds.contains(&Lamp())) kinds.insert(KindId(Lamp().name));
  for (const FurnitureClass* f : furniture_kinds) kinds.insert(KindId(f->name));
  // The domain names the three appliances' kinds.
  for (const char* name : {"SinkBasin", "Microwave", "Fridge"})
    kinds.insert(KindId(name));
  std::string kind_names;
  for (const std::string& kind : kinds) absl::StrAppend(&kind_names, " ", kind);

  return absl::StrCat("(define (problem household_", game.scene_hash,
                      ")\n  (:domain household)\n  (:objects\n    agent1 - "
                      "agent\n   ",
                      kind_names, " - kind\n   ", things, " - thing\n   ",
                      furniture, " - furniture\n    ", room.start, spots,
                      " - spot)\n  (:init\n    (at agent1 ", room.start, ")\n",
                      init, fits, "  )\n  (:goal ", GoalText(game), "))\n");
}

std::string GameFileText(const Game& game) {
  nlohmann::ordered_json json;
  json["pddl_domain"] = DomainText();
  json["grammar"] = GameGrammar(game);
  json["pddl_problem"] = ProblemText(game);
  json["solvable"] = true;
  json["walkthrough"] = game.walkthrough;
  json["task_type"] = TaskTypeName(game.type);
  json["target"] = game.target->name;
  json["goal"] = game.goal ? game.goal->name : Lamp().name;
  json["scene_hash"] = game.scene_hash;
  return json.dump() + "\n";
}

std::string TrajDataText(const Game& game) {
  return absl::StrCat("{\"task_type\": \"", TaskTypeName(game.type), "\"}\n");
}

std::string GameFolder(const Game& game) {
  return absl::StrCat(
      SplitName(game.split), "/", TaskTypeName(game.type), "-",
      game.target->name, "-None-", game.goal ? game.goal->name : Lamp().name,
      "-", game.room->number, "/trial_", game.scene_hash.substr(0, 16));
}

}  // namespace atod::games
