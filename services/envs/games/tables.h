#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/types/span.h"

namespace atod::games {

// Everything the generator knows about households. Class names and what fits
// where follow everyday sense and ALFWorld's vocabulary.

enum class RoomKind { kSmall, kKitchen, kLivingRoom, kBedroom, kBathroom };
constexpr size_t kRoomKinds = 5;

enum class TaskType { kPick, kLook, kClean, kHeat, kCool, kTwo };
constexpr size_t kTaskTypes = 6;

// "pick_and_place_simple" …: ALFWorld's names.
std::string TaskTypeName(TaskType type);
std::optional<TaskType> ParseTaskType(const std::string& name);
// Whether rooms of this kind have the appliances of the task.
bool Offers(RoomKind kind, TaskType type);

// What a thing class lies in or on. One bit a group of furniture.
enum Group : uint32_t {
  kWorktop = 1 << 0,  // counter tops and tables that take most things
  kTable = 1 << 1,    // desk, dresser, shelf
  kCupboard = 1 << 2,
  kDrawerLike = 1 << 3,
  kCold = 1 << 4,
  kOven = 1 << 5,
  kBasin = 1 << 6,
  kBin = 1 << 7,
  kStove = 1 << 8,
  kSeat = 1 << 9,
  kSafeLike = 1 << 10,
  kToiletLike = 1 << 11,
  kMachine = 1 << 12,
};

struct FurnitureClass {
  std::string name;  // "Cabinet"; display names are its lower case
  Group group;
  bool has_door;
  // Pieces in a room of each kind: always, and at most.
  struct Count {
    int fixed, most;
  };
  std::array<Count, kRoomKinds> rooms;
};

struct ThingClass {
  std::string name;
  uint32_t groups;  // where it may lie
  std::string in;   // kinds of room: letters of "skldb"
  bool vessel, washable, heatable, coolable, cuttable, blade;
  bool lamplight;  // worth examining under a lamp
};

absl::Span<const FurnitureClass> AllFurniture();
absl::Span<const ThingClass> AllThings();
// The lamp: not portable, on worktops and tables.
const ThingClass& Lamp();

bool Fits(const ThingClass& thing, const FurnitureClass& furniture);
bool LivesIn(const ThingClass& thing, RoomKind kind);

// By display name ("sinkbasin", "apple"); null when unknown.
const FurnitureClass* FindFurniture(const std::string& display);
const ThingClass* FindThing(const std::string& display);

}  // namespace atod::games
