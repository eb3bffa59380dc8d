#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/envs/games/room.h"
#include "services/envs/games/tables.h"

namespace atod::games {

enum class Split { kTrain, kValidSeen, kValidUnseen };
constexpr size_t kSplits = 3;
std::string SplitName(Split split);  // "train" …

struct Range {
  int low, high;  // inclusive
};

// How hard the games are. The defaults are the embedded task's.
struct GeneratorOptions {
  uint64_t seed = 0;
  std::array<int, kSplits> games = {1500, 240, 240};
  Range receptacles = {5, 7};
  Range objects = {4, 7};   // portable things; the lamp comes on top
  int layouts = 60;         // train and valid_seen
  int unseen_layouts = 20;  // valid_unseen
  int most_per_receptacle = 3;
  int most_per_class = 2;
  double lamp = 0.3;  // share of rooms with a lamp, when no task needs it
  // No game that the expert of planner.h cannot win in so many turns.
  int turns = 20;
  bool full = false;  // kitchens, living rooms, bedrooms, bathrooms
};
// About the size of ALFWorld's rooms.
GeneratorOptions FullSize();

struct Thing {
  const ThingClass* kind;
  std::string id;    // mangled
  size_t where;      // index into Room::furniture
  std::string name;  // as players see it, "apple 1"
};

struct Game {
  Split split;
  TaskType type;
  const Room* room;  // owned by the collection
  const ThingClass* target;
  const FurnitureClass* goal;  // null for kLook
  std::vector<Thing> things;
  std::string sentence;  // "put a hot apple in cabinet"
  // A shortest solution for one who knows where everything is.
  std::vector<std::string> walkthrough;
  // Identity of what a player can find out: furniture, contents, task. Equal
  // for games that differ in coordinates or wording alone.
  std::string scene_hash;
  int expert_turns;  // of the expert, who searches
};

struct Collection {
  GeneratorOptions options;
  std::vector<Room> rooms;
  // Unseen layouts whose furniture no train layout has.
  int new_layouts = 0;
  std::vector<Game> games;
};

// Draws the games: task types in turn, no two of equal scene in any splits,
// none won at the start, all won by the
// expert in time. A pure function of the options. INVALID_ARGUMENT when
// they leave no room for a task.
absl::StatusOr<Collection> Generate(const GeneratorOptions& options);

}  // namespace atod::games
