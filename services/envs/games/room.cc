#include "services/envs/games/room.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace atod::games {
namespace {

constexpr int kHalfRoom = 400;  // hundredths of a metre

std::string Coordinate(int hundredths) {
  return absl::StrFormat("%c%02d.%02d", hundredths < 0 ? '-' : '+',
                         std::abs(hundredths) / 100,
                         std::abs(hundredths) % 100);
}

int Between(Rng& rng, int low, int high) {
  return low + static_cast<int>(rng.Below(high - low + 1));
}

// Grid cells are a quarter of a metre, as in ALFRED.
std::string DrawSpot(Rng& rng, std::set<std::pair<int, int>>& used) {
  int x, z;
  do {
    x = Between(rng, -kHalfRoom / 25, kHalfRoom / 25);
    z = Between(rng, -kHalfRoom / 25, kHalfRoom / 25);
  } while (!used.insert({x, z}).second);
  return Mangle(absl::StrCat("loc|", x, "|", z, "|", rng.Below(4), "|",
                             15 * Between(rng, 0, 4)));
}

}  // namespace

std::string Mangle(const std::string& id) {
  return absl::StrReplaceAll(id, {{"|", "_bar_"},
                                  {"-", "_minus_"},
                                  {"+", "_plus_"},
                                  {".", "_dot_"},
                                  {",", "_comma_"}});
}

std::string MangledId(const std::string& name, int x, int y, int z) {
  // Basins belong to a sink or a tub: Sink|x|y|z|SinkBasin.
  std::string owner = name;
  const bool basin = absl::EndsWith(name, "Basin");
  if (basin) owner.resize(owner.size() - 5);
  std::string id = absl::StrCat(owner, "|", Coordinate(x), "|", Coordinate(y),
                                "|", Coordinate(z));
  if (basin) absl::StrAppend(&id, "|", name);
  return Mangle(id);
}

std::vector<std::string> DisplayNames(const std::vector<std::string>& ids) {
  std::map<std::string, std::vector<std::pair<std::string, size_t>>> classes;
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string id = absl::AsciiStrToLower(ids[i]);
    std::string name = id.substr(0, id.find("_bar_"));
    if (absl::StrContains(id, "basin")) name += "basin";
    classes[name].emplace_back(id, i);
  }
  std::vector<std::string> names(ids.size());
  for (auto& [name, members] : classes) {
    std::sort(members.begin(), members.end());
    for (size_t i = 0; i < members.size(); ++i)
      names[members[i].second] = absl::StrCat(name, " ", members.size() - i);
  }
  return names;
}

Room DrawRoom(RoomKind kind, int number, int pieces, Rng& rng) {
  Room room{.kind = kind, .number = number, .furniture = {}, .start = {}};
  std::vector<const FurnitureClass*> chosen, rest;
  for (const FurnitureClass& f : AllFurniture()) {
    const FurnitureClass::Count count = f.rooms[static_cast<size_t>(kind)];
    chosen.insert(chosen.end(), count.fixed, &f);
    rest.insert(rest.end(), count.most - count.fixed, &f);
  }
  rng.Shuffle(rest);
  while (static_cast<int>(chosen.size()) < pieces && !rest.empty()) {
    chosen.push_back(rest.back());
    rest.pop_back();
  }

  std::set<std::pair<int, int>> cells;
  std::set<std::string> ids;
  room.start = DrawSpot(rng, cells);
  for (const FurnitureClass* f : chosen) {
    std::string id;
    do {
      id =
          MangledId(f->name, Between(rng, -kHalfRoom, kHalfRoom),
                    Between(rng, 10, 200), Between(rng, -kHalfRoom, kHalfRoom));
    } while (!ids.insert(id).second);
    room.furniture.push_back({f, id, DrawSpot(rng, cells), ""});
  }
  std::vector<std::string> in_order;
  for (const Furniture& f : room.furniture) in_order.push_back(f.id);
  const std::vector<std::string> names = DisplayNames(in_order);
  for (size_t i = 0; i < names.size(); ++i) room.furniture[i].name = names[i];
  return room;
}

std::string Outline(const Room& room) {
  std::map<std::string, int> counts;
  for (const Furniture& f : room.furniture) ++counts[f.kind->name];
  std::string outline;
  for (const auto& [name, count] : counts)
    absl::StrAppend(&outline, name, " ", count, ",");
  return outline;
}

}  // namespace atod::games
