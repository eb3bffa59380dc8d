#pragma once

#include <string>
#include <vector>

#include "common/base/rng.h"
#include "services/envs/games/tables.h"

namespace atod::games {

struct Furniture {
  const FurnitureClass* kind;
  std::string id;    // mangled, "Cabinet_bar__plus_01_dot_66_…"
  std::string spot;  // "loc_bar_4_bar__minus_3_bar_1_bar_45"
  std::string name;  // as players see it, "cabinet 2"
};

// A layout: furniture at fixed places. Things come with each game.
struct Room {
  RoomKind kind;
  int number = 0;
  std::vector<Furniture> furniture;
  std::string start;  // a spot without furniture
};

// Draws a room with `pieces` pieces of furniture, or the nearest number that
// rooms of this kind allow.
Room DrawRoom(RoomKind kind, int number, int pieces, Rng& rng);

// The furniture classes with their counts, "cabinet 2,desk 1,…": two rooms
// with equal outlines look the same to a player.
std::string Outline(const Room& room);

// "Apple|+00.10|+00.90|-01.20" -> "Apple_bar__plus_00_dot_10_bar_…".
std::string Mangle(const std::string& id);
// A mangled id of class `name` at hundredths (x, y, z).
std::string MangledId(const std::string& name, int x, int y, int z);

// The names that players see: per class, ids in ascending lower-case order are
// numbered downwards.
std::vector<std::string> DisplayNames(const std::vector<std::string>& ids);

}  // namespace atod::games
