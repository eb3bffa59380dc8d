#include "services/envs/games/tables.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"

namespace atod::games {
namespace {

constexpr std::array<const char*, kTaskTypes> kTaskNames = {
    "pick_and_place_simple",          "look_at_obj_in_light",
    "pick_clean_then_place_in_recep", "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",  "pick_two_obj_and_place"};

// clang-format off
//  name, group, door,       small   kitchen living  bedroom bathroom
const std::vector<FurnitureClass>& Furnitures() {
  static const auto* const all = new std::vector<FurnitureClass>{
  {"ArmChair", kSeat, false,         {{{0, 0}, {0, 0}, {0, 2}, {0, 1}, {0, 0}}}},
  {"BathtubBasin", kBasin, false,    {{{0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 1}}}},
  {"Bed", kSeat, false,              {{{0, 0}, {0, 0}, {0, 0}, {1, 1}, {0, 0}}}},
  {"Cabinet", kCupboard, true,       {{{0, 2}, {4, 10}, {0, 3}, {0, 2}, {1, 4}}}},
  {"CoffeeMachine", kMachine, false, {{{0, 0}, {1, 1}, {0, 0}, {0, 0}, {0, 0}}}},
  {"CoffeeTable", kWorktop, false,   {{{0, 0}, {0, 0}, {1, 2}, {0, 0}, {0, 0}}}},
  {"CounterTop", kWorktop, false,    {{{1, 2}, {1, 3}, {0, 0}, {0, 0}, {1, 2}}}},
  {"Desk", kTable, false,            {{{0, 1}, {0, 0}, {0, 1}, {1, 2}, {0, 0}}}},
  {"DiningTable", kWorktop, false,   {{{0, 0}, {0, 1}, {0, 1}, {0, 0}, {0, 0}}}},
  {"Drawer", kDrawerLike, true,      {{{0, 2}, {2, 8}, {0, 6}, {2, 8}, {0, 5}}}},
  {"Dresser", kTable, false,         {{{0, 0}, {0, 0}, {0, 1}, {0, 1}, {0, 0}}}},
  {"Fridge", kCold, true,            {{{1, 1}, {1, 1}, {0, 0}, {0, 0}, {0, 0}}}},
  {"GarbageCan", kBin, false,        {{{0, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}}}},
  {"Microwave", kOven, true,         {{{1, 1}, {1, 1}, {0, 0}, {0, 0}, {0, 0}}}},
  {"Ottoman", kSeat, false,          {{{0, 0}, {0, 0}, {0, 1}, {0, 0}, {0, 0}}}},
  {"Safe", kSafeLike, true,          {{{0, 0}, {0, 0}, {0, 1}, {0, 1}, {0, 0}}}},
  {"Shelf", kTable, false,           {{{0, 1}, {0, 3}, {0, 6}, {1, 6}, {0, 3}}}},
  {"SideTable", kWorktop, false,     {{{0, 1}, {0, 1}, {0, 3}, {0, 2}, {0, 1}}}},
  {"SinkBasin", kBasin, false,       {{{1, 1}, {1, 1}, {0, 0}, {0, 0}, {1, 2}}}},
  {"Sofa", kSeat, false,             {{{0, 0}, {0, 0}, {1, 2}, {0, 0}, {0, 0}}}},
  {"StoveBurner", kStove, false,     {{{0, 0}, {4, 4}, {0, 0}, {0, 0}, {0, 0}}}},
  {"Toilet", kToiletLike, false,     {{{0, 0}, {0, 0}, {0, 0}, {0, 0}, {1, 1}}}},
  {"TVStand", kTable, false,         {{{0, 0}, {0, 0}, {0, 1}, {0, 0}, {0, 0}}}},
};
  return *all;
}

constexpr uint32_t kFood = kWorktop | kCold | kOven | kBasin | kBin;
constexpr uint32_t kDishes = kWorktop | kTable | kCupboard | kCold | kOven | kBasin;
constexpr uint32_t kCutlery = kWorktop | kDrawerLike | kBasin;
constexpr uint32_t kPaper = kWorktop | kTable | kDrawerLike | kCupboard;
constexpr uint32_t kSmallStuff = kWorktop | kTable | kDrawerLike;
constexpr uint32_t kHygiene = kWorktop | kCupboard | kDrawerLike | kBin | kToiletLike | kTable;

//  name, groups, rooms,                            vessel wash  heat   cool   cut    blade  lamplight
const std::vector<ThingClass>& Things() {
  static const auto* const all = new std::vector<ThingClass>{
  {"AlarmClock", kWorktop | kTable, "d",            false, false, false, false, false, false, true},
  {"Apple", kFood, "sk",                            false, true,  true,  true,  true,  false, false},
  {"BaseballBat", kSeat | kWorktop, "d",            false, false, false, false, false, false, false},
  {"Book", kPaper | kSeat, "sld",                   false, false, false, false, false, false, true},
  {"Bowl", kDishes, "skd",                          true,  true,  false, true,  false, false, true},
  {"Bread", kWorktop | kCold | kOven | kBin, "k",   false, false, true,  true,  true,  false, false},
  {"ButterKnife", kCutlery, "k",                    false, true,  false, false, false, true,  false},
  {"Candle", kHygiene, "b",                         false, false, false, false, false, false, false},
  {"CD", kPaper | kBin | kSafeLike, "sd",           false, false, false, false, false, false, true},
  {"CellPhone", kSmallStuff | kSeat | kSafeLike, "ld", false, false, false, false, false, false, true},
  {"Cloth", kWorktop | kCupboard | kDrawerLike | kBasin, "b", false, true, false, false, false, false, false},
  {"CreditCard", kSmallStuff | kSeat | kSafeLike, "ld", false, false, false, false, false, false, true},
  {"Cup", kDishes, "k",                             true,  true,  true,  true,  false, false, false},
  {"DishSponge", kWorktop | kDrawerLike | kBasin | kBin, "k", false, true, false, false, false, false, false},
  {"Egg", kFood, "sk",                              false, true,  true,  true,  true,  false, false},
  {"Fork", kCutlery, "sk",                          false, true,  false, false, false, false, false},
  {"KeyChain", kSmallStuff | kSeat | kSafeLike, "ld", false, false, false, false, false, false, true},
  {"Knife", kCutlery, "sk",                         false, true,  false, false, false, true,  false},
  {"Ladle", kCutlery, "k",                          false, true,  false, false, false, false, false},
  {"Laptop", kWorktop | kTable | kSeat, "ld",       false, false, false, false, false, false, true},
  {"Lettuce", kWorktop | kCold | kBasin | kBin, "k", false, true, false, true,  true,  false, false},
  {"Mug", kDishes | kMachine, "skd",                true,  true,  true,  true,  false, false, true},
  {"Newspaper", kPaper | kSeat | kBin, "l",         false, false, false, false, false, false, true},
  {"Pan", kWorktop | kCupboard | kStove | kBasin, "k", true, true, false, true, false, false, false},
  {"Pen", kSmallStuff | kBin, "sd",                 false, false, false, false, false, false, true},
  {"Pencil", kSmallStuff | kBin, "d",               false, false, false, false, false, false, true},
  {"PepperShaker", kWorktop | kCupboard | kDrawerLike, "k", false, false, false, false, false, false, false},
  {"Pillow", kSeat, "ld",                           false, false, false, false, false, false, true},
  {"Plate", kDishes, "sk",                          true,  true,  true,  true,  false, false, false},
  {"Pot", kWorktop | kCupboard | kStove | kBasin, "k", true, true, false, true, false, false, false},
  {"Potato", kFood, "sk",                           false, true,  true,  true,  true,  false, false},
  {"RemoteControl", kSmallStuff | kSeat, "l",       false, false, false, false, false, false, true},
  {"SaltShaker", kWorktop | kCupboard | kDrawerLike, "k", false, false, false, false, false, false, false},
  {"SoapBar", kHygiene | kBasin, "b",               false, true,  false, false, false, false, false},
  {"SoapBottle", kHygiene, "kb",                    false, false, false, false, false, false, false},
  {"Spatula", kCutlery, "k",                        false, true,  false, false, false, false, false},
  {"Spoon", kCutlery, "k",                          false, true,  false, false, false, false, false},
  {"SprayBottle", kHygiene, "b",                    false, false, false, false, false, false, false},
  {"Statue", kWorktop | kTable | kSafeLike, "l",    false, false, false, false, false, false, true},
  {"TissueBox", kWorktop | kTable | kCupboard | kBin, "lb", false, false, false, false, false, false, false},
  {"ToiletPaper", kHygiene, "b",                    false, false, false, false, false, false, false},
  {"Tomato", kFood, "k",                            false, true,  true,  true,  true,  false, false},
  {"Vase", kWorktop | kTable | kCupboard | kSafeLike, "l", false, false, false, false, false, false, true},
  {"Watch", kSmallStuff | kSafeLike, "ld",          false, false, false, false, false, false, true},
};
  return *all;
}
// clang-format on

}  // namespace

std::string TaskTypeName(TaskType type) {
  return kTaskNames[static_cast<size_t>(type)];
}

std::optional<TaskType> ParseTaskType(const std::string& name) {
  for (size_t i = 0; i < kTaskTypes; ++i)
    if (kTaskNames[i] == name) return static_cast<TaskType>(i);
  return std::nullopt;
}

bool Offers(RoomKind kind, TaskType type) {
  switch (type) {
    case TaskType::kPick:
    case TaskType::kTwo:
      return true;
    case TaskType::kLook:
      return LivesIn(Lamp(), kind);
    case TaskType::kClean:
      return kind == RoomKind::kSmall || kind == RoomKind::kKitchen ||
             kind == RoomKind::kBathroom;
    case TaskType::kHeat:
    case TaskType::kCool:
      return kind == RoomKind::kSmall || kind == RoomKind::kKitchen;
  }
  return false;
}

absl::Span<const FurnitureClass> AllFurniture() { return Furnitures(); }
absl::Span<const ThingClass> AllThings() { return Things(); }
const ThingClass& Lamp() {
  static const auto* const lamp = new ThingClass{.name = "DeskLamp",
                                                 .groups = kWorktop | kTable,
                                                 .in = "sld",
                                                 .vessel = false,
                                                 .washable = false,
                                                 .heatable = false,
                                                 .coolable = false,
                                                 .cuttable = false,
                                                 .blade = false,
                                                 .lamplight = false};
  return *lamp;
}

bool Fits(const ThingClass& thing, const FurnitureClass& furniture) {
  return (thing.groups & furniture.group) != 0;
}

bool LivesIn(const ThingClass& thing, RoomKind kind) {
  return thing.in.find("skldb"[static_cast<size_t>(kind)]) != std::string::npos;
}

const FurnitureClass* FindFurniture(const std::string& display) {
  for (const FurnitureClass& f : Furnitures())
    if (absl::EqualsIgnoreCase(f.name, display)) return &f;
  return nullptr;
}

const ThingClass* FindThing(const std::string& display) {
  for (const ThingClass& t : Things())
    if (absl::EqualsIgnoreCase(t.name, display)) return &t;
  if (absl::EqualsIgnoreCase(Lamp().name, display)) return &Lamp();
  return nullptr;
}

}  // namespace atod::games
