#include "services/envs/games/generator.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "services/envs/games/trial.h"

namespace atod::games {
namespace {

constexpr int kTries = 400;

int Draw(Rng& rng, Range range) {
  return range.low + static_cast<int>(rng.Below(range.high - range.low + 1));
}

bool CanBeTarget(const ThingClass& thing, TaskType type) {
  switch (type) {
    case TaskType::kLook:
      return thing.lamplight;
    case TaskType::kClean:
      return thing.washable;
    case TaskType::kHeat:
      return thing.heatable;
    case TaskType::kCool:
      return thing.coolable;
    default:
      return true;
  }
}

std::string_view ApplianceName(TaskType type) {
  switch (type) {
    case TaskType::kClean:
      return "SinkBasin";
    case TaskType::kHeat:
      return "Microwave";
    case TaskType::kCool:
      return "Fridge";
    default:
      return "";
  }
}

// Things are neither left in the microwave nor where they were just treated.
bool CanBeGoal(const FurnitureClass& furniture, const ThingClass& target,
               TaskType type) {
  return Fits(target, furniture) && furniture.name != "Microwave" &&
         furniture.name != ApplianceName(type);
}

std::string Sentence(TaskType type, const ThingClass& target,
                     const FurnitureClass* goal, bool second_wording) {
  const std::string x = absl::AsciiStrToLower(target.name);
  const std::string f = goal ? absl::AsciiStrToLower(goal->name) : "";
  const bool b = second_wording;
  switch (type) {
    case TaskType::kPick:
      return b ? absl::StrCat("put some ", x, " on ", f)
               : absl::StrCat("put a ", x, " in ", f);
    case TaskType::kLook:
      return b ? absl::StrCat("examine the ", x, " with the desklamp")
               : absl::StrCat("look at ", x, " under the desklamp");
    case TaskType::kClean:
      return b ? absl::StrCat("clean some ", x, " and put it in ", f)
               : absl::StrCat("put a clean ", x, " in ", f);
    case TaskType::kHeat:
      return b ? absl::StrCat("heat some ", x, " and put it in ", f)
               : absl::StrCat("put a hot ", x, " in ", f);
    case TaskType::kCool:
      return b ? absl::StrCat("cool some ", x, " and put it in ", f)
               : absl::StrCat("put a cool ", x, " in ", f);
    case TaskType::kTwo:
      return b ? absl::StrCat("find two ", x, " and put them in ", f)
               : absl::StrCat("put two ", x, " in ", f);
  }
  return "";
}

// ---- the walkthrough ------------------------------------------------------

// Writes down a plan, remembering where the agent is and what it opened.
class WalkthroughWriter {
 public:
  void Go(const Furniture& f) {
    if (at_ == &f) return;
    at_ = &f;
    steps_.push_back(absl::StrCat("go to ", f.name));
  }
  void Take(const Thing& x, const Furniture& f) {
    Reach(f);
    steps_.push_back(absl::StrCat("take ", x.name, " from ", f.name));
  }
  void Put(const Thing& x, const Furniture& f) {
    Reach(f);
    steps_.push_back(absl::StrCat("move ", x.name, " to ", f.name));
  }
  void Treat(const std::string& verb, const Thing& x, const Furniture& f) {
    Go(f);
    steps_.push_back(absl::StrCat(verb, " ", x.name, " with ", f.name));
  }
  void Use(const Thing& x, const Furniture& f) {
    Go(f);
    steps_.push_back(absl::StrCat("use ", x.name));
  }
  std::vector<std::string>& steps() { return steps_; }

 private:
  void Reach(const Furniture& f) {
    Go(f);
    if (f.kind->has_door && open_.insert(&f).second)
      steps_.push_back(absl::StrCat("open ", f.name));
  }

  const Furniture* at_ = nullptr;
  std::set<const Furniture*> open_;
  std::vector<std::string> steps_;
};

const Furniture& Find(const Room& room, std::string_view name) {
  return *std::find_if(
      room.furniture.begin(), room.furniture.end(),
      [name](const Furniture& f) { return f.kind->name == name; });
}

std::vector<std::string> PlanWith(const Game& game, const Thing& first,
                                  const Thing* second) {
  const Room& room = *game.room;
  WalkthroughWriter plan;
  plan.Take(first, room.furniture[first.where]);
  if (game.type == TaskType::kLook) {
    for (const Thing& lamp : game.things)
      if (lamp.kind == &Lamp()) {
        plan.Use(lamp, room.furniture[lamp.where]);
        break;
      }
    return plan.steps();
  }
  const Furniture& goal = Find(room, game.goal->name);
  if (game.type == TaskType::kClean)
    plan.Treat("clean", first, Find(room, "SinkBasin"));
  if (game.type == TaskType::kHeat)
    plan.Treat("heat", first, Find(room, "Microwave"));
  if (game.type == TaskType::kCool)
    plan.Treat("cool", first, Find(room, "Fridge"));
  plan.Put(first, goal);
  if (second) {
    plan.Take(*second, room.furniture[second->where]);
    plan.Put(*second, goal);
  }
  return plan.steps();
}

std::vector<std::string> Walkthrough(const Game& game) {
  std::vector<std::string> best;
  const auto keep = [&best](std::vector<std::string> steps) {
    if (best.empty() || steps.size() < best.size()) best = std::move(steps);
  };
  for (const Thing& first : game.things) {
    if (first.kind != game.target) continue;
    if (game.type != TaskType::kTwo) {
      keep(PlanWith(game, first, nullptr));
      continue;
    }
    for (const Thing& second : game.things)
      if (second.kind == game.target && &second != &first)
        keep(PlanWith(game, first, &second));
  }
  return best;
}

std::string SceneHash(const Game& game) {
  std::vector<std::string> lines;
  for (const Furniture& f : game.room->furniture) lines.push_back(f.name);
  for (const Thing& x : game.things)
    lines.push_back(
        absl::StrCat(x.name, " in ", game.room->furniture[x.where].name));
  std::sort(lines.begin(), lines.end());
  return HashHex(absl::StrCat(TaskTypeName(game.type), "\n", game.target->name,
                              "\n", game.goal ? game.goal->name : Lamp().name,
                              "\n", absl::StrJoin(lines, "\n")));
}

// ---- one game -------------------------------------------------------------

// Puts a thing somewhere it fits and there is room, out of the goal's class
// when it is of the target's. False when there is no such place.
bool Place(const GeneratorOptions& options, const ThingClass& kind, Game& game,
           std::vector<int>& load, Rng& rng) {
  std::vector<size_t> places;
  const auto& furniture = game.room->furniture;
  for (size_t i = 0; i < furniture.size(); ++i)
    if (Fits(kind, *furniture[i].kind) &&
        load[i] < options.most_per_receptacle &&
        !(&kind == game.target && furniture[i].kind == game.goal))
      places.push_back(i);
  if (places.empty()) return false;
  const size_t where = places[rng.Below(places.size())];
  ++load[where];
  game.things.push_back({&kind, "", where, ""});
  return true;
}

void NameThings(std::vector<Thing>& things, Rng& rng) {
  std::vector<std::string> ids;
  std::set<std::string> used;
  for (Thing& x : things) {
    const auto metre = [&rng] {
      return static_cast<int>(rng.Below(801)) - 400;
    };
    do {
      const int a = metre(), b = metre();
      x.id =
          MangledId(x.kind->name, a, 10 + static_cast<int>(rng.Below(190)), b);
    } while (!used.insert(x.id).second);
    ids.push_back(x.id);
  }
  const std::vector<std::string> names = DisplayNames(ids);
  for (size_t i = 0; i < things.size(); ++i) things[i].name = names[i];
}

// Nothing when this draw leaves no place for what the task needs.
std::optional<Game> DrawGame(const GeneratorOptions& options, Split split,
                             TaskType type, const Room& room, Rng& rng) {
  std::vector<const ThingClass*> residents;
  // Goal classes of each possible target.
  std::vector<std::pair<const ThingClass*, std::vector<const FurnitureClass*>>>
      targets;
  for (const ThingClass& thing : AllThings()) {
    if (!LivesIn(thing, room.kind)) continue;
    residents.push_back(&thing);
    if (!CanBeTarget(thing, type)) continue;
    std::vector<const FurnitureClass*> goals;
    if (type == TaskType::kLook) {
      goals.push_back(nullptr);
    } else {
      for (const Furniture& f : room.furniture)
        if (CanBeGoal(*f.kind, thing, type) &&
            std::find(goals.begin(), goals.end(), f.kind) == goals.end())
          goals.push_back(f.kind);
    }
    if (!goals.empty()) targets.emplace_back(&thing, std::move(goals));
  }
  if (targets.empty()) return std::nullopt;
  const auto& [target, goals] = targets[rng.Below(targets.size())];
  Game game{.split = split,
            .type = type,
            .room = &room,
            .target = target,
            .goal = goals[rng.Below(goals.size())],
            .things = {},
            .sentence = {},
            .walkthrough = {},
            .scene_hash = {},
            .expert_turns = 0};

  std::vector<int> load(room.furniture.size(), 0);
  const bool look = type == TaskType::kLook;
  if (look || (LivesIn(Lamp(), room.kind) && rng.Uniform() < options.lamp)) {
    if (!Place(options, Lamp(), game, load, rng) && look) return std::nullopt;
  }
  const size_t lamps = game.things.size();
  for (int i = 0; i < (type == TaskType::kTwo ? 2 : 1); ++i)
    if (!Place(options, *target, game, load, rng)) return std::nullopt;
  const size_t wanted = lamps + Draw(rng, options.objects);
  for (int tries = 0; game.things.size() < wanted && tries < kTries; ++tries) {
    const ThingClass* kind = residents[rng.Below(residents.size())];
    const auto same =
        std::count_if(game.things.begin(), game.things.end(),
                      [kind](const Thing& x) { return x.kind == kind; });
    if (same < options.most_per_class) Place(options, *kind, game, load, rng);
  }
  if (game.things.size() < lamps + options.objects.low) return std::nullopt;
  NameThings(game.things, rng);
  game.sentence = Sentence(type, *target, game.goal, rng.Below(2) == 1);
  game.walkthrough = Walkthrough(game);
  game.scene_hash = SceneHash(game);
  return game;
}

// ---- the collection -------------------------------------------------------

absl::Status Validate(const GeneratorOptions& o) {
  const auto range = [](const char* field, Range r, int least) {
    if (r.low >= least && r.high >= r.low) return absl::OkStatus();
    return BadInput({.file = "games",
                     .field = field,
                     .found = absl::StrCat(r.low, "-", r.high),
                     .expected = absl::StrCat("MIN-MAX with MIN >= ", least)});
  };
  ATOD_RETURN_IF_ERROR(range("receptacles", o.receptacles, 1));
  ATOD_RETURN_IF_ERROR(range("objects", o.objects, 1));
  for (const auto& [field, value] :
       {std::pair{"layouts", o.layouts},
        std::pair{"unseen-layouts", o.unseen_layouts},
        std::pair{"most-per-receptacle", o.most_per_receptacle},
        std::pair{"most-per-class", o.most_per_class},
        std::pair{"turns", o.turns}})
    if (value < 1)
      return BadInput({.file = "games",
                       .field = field,
                       .found = absl::StrCat(value),
                       .expected = "at least 1"});
  for (size_t s = 0; s < kSplits; ++s)
    if (o.games[s] < 0)
      return BadInput({.file = "games",
                       .field = SplitName(static_cast<Split>(s)),
                       .found = absl::StrCat(o.games[s]),
                       .expected = "at least 0"});
  return absl::OkStatus();
}

RoomKind KindOf(const GeneratorOptions& options, int index) {
  // Kitchens first and most: they offer five of the six tasks.
  constexpr RoomKind kCycle[] = {RoomKind::kKitchen, RoomKind::kBedroom,
                                 RoomKind::kLivingRoom, RoomKind::kKitchen,
                                 RoomKind::kBathroom};
  return options.full ? kCycle[index % std::size(kCycle)] : RoomKind::kSmall;
}

// Draws rooms until one has an outline of the wanted side: a share of all
// outlines, chosen by hash, is kept for the unseen layouts.
Room DrawRoomOfSide(const GeneratorOptions& options, int index, bool unseen,
                    Rng& rng) {
  const uint64_t all = options.layouts + options.unseen_layouts;
  const int first = unseen ? options.layouts : 0;
  Room room;
  int pieces = 0;
  for (int tries = 0; tries < kTries; ++tries) {
    // The size stays for a while, or small rooms, of which there are few
    // outlines, would become rare.
    if (tries % 20 == 0) pieces = Draw(rng, options.receptacles);
    room = DrawRoom(KindOf(options, index), first + index + 1, pieces, rng);
    const uint64_t key =
        std::stoull(HashHex(Outline(room)).substr(0, 15), nullptr, 16);
    const bool kept = MixSeed(options.seed, 3, key) % all <
                      static_cast<uint64_t>(options.unseen_layouts);
    if (kept == unseen) break;
  }
  return room;
}

// Train layouts are numbered from 1, the unseen ones after them.
std::vector<Room> DrawRooms(const GeneratorOptions& options, int& new_layouts) {
  Rng rng(MixSeed(options.seed, 1));
  std::vector<Room> rooms;
  absl::flat_hash_set<std::string> train_outlines;
  for (int i = 0; i < options.layouts; ++i) {
    rooms.push_back(DrawRoomOfSide(options, i, /*unseen=*/false, rng));
    train_outlines.insert(Outline(rooms.back()));
  }
  new_layouts = 0;
  for (int i = 0; i < options.unseen_layouts; ++i) {
    rooms.push_back(DrawRoomOfSide(options, i, /*unseen=*/true, rng));
    new_layouts += !train_outlines.contains(Outline(rooms.back()));
  }
  return rooms;
}

}  // namespace

std::string SplitName(Split split) {
  constexpr std::array<const char*, kSplits> kNames = {"train", "valid_seen",
                                                       "valid_unseen"};
  return kNames[static_cast<size_t>(split)];
}

GeneratorOptions FullSize() {
  GeneratorOptions options;
  options.receptacles = {8, 24};
  options.objects = {15, 40};
  options.most_per_receptacle = 8;
  options.most_per_class = 3;
  options.turns = 50;
  options.full = true;
  return options;
}

absl::StatusOr<Collection> Generate(const GeneratorOptions& options) {
  ATOD_RETURN_IF_ERROR(Validate(options));
  Collection out;
  out.options = options;
  out.rooms = DrawRooms(options, out.new_layouts);

  absl::flat_hash_set<std::string> scenes;
  for (size_t s = 0; s < kSplits; ++s) {
    const Split split = static_cast<Split>(s);
    const size_t first = split == Split::kValidUnseen ? options.layouts : 0;
    const size_t count =
        split == Split::kValidUnseen ? options.unseen_layouts : options.layouts;
    for (int i = 0; i < options.games[s]; ++i) {
      const TaskType type = static_cast<TaskType>(i % kTaskTypes);
      Rng rng(MixSeed(options.seed, 2, s, i));
      std::optional<Game> game;
      for (int tries = 0; tries < kTries; ++tries) {
        const Room& room = out.rooms[first + rng.Below(count)];
        if (!Offers(room.kind, type)) continue;
        game = DrawGame(options, split, type, room, rng);
        if (!game || !scenes.insert(game->scene_hash).second) {
          game.reset();
          continue;
        }
        ATOD_ASSIGN_OR_RETURN(game->expert_turns,
                              ExpertTurns(*game, options.turns));
        if (game->expert_turns <= options.turns) break;
        game.reset();
      }
      if (!game)
        return BadInput({.file = "games",
                         .field = SplitName(split),
                         .found = absl::StrCat("no new ", TaskTypeName(type),
                                               " game after ", i, " games"),
                         .expected =
                             "more receptacles, objects or layouts, or fewer "
                             "games"});
      out.games.push_back(std::move(*game));
    }
  }
  return out;
}

}  // namespace atod::games
