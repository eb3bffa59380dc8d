#include "services/envs/games/planner.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "services/envs/games/tables.h"

namespace atod::games {
namespace {

using Names = std::vector<std::string>;

struct Task {
  TaskType type = TaskType::kPick;
  std::string target;  // "apple"
  std::string goal;    // "cabinet"; the lamp's class for kLook
};

std::string ClassOf(const std::string& name) {
  return name.substr(0, name.find(' '));
}

int NumberOf(const std::string& name) {
  const std::vector<std::string> words = absl::StrSplit(name, ' ');
  int number = 0;
  return absl::SimpleAtoi(words.back(), &number) ? number : 0;
}

// What stands between `before` and the next `after` (the end when `after` is
// empty); nothing when either is missing.
std::optional<std::string> Between(const std::string& text,
                                   const std::string& before,
                                   const std::string& after) {
  const size_t at = text.find(before);
  if (at == std::string::npos) return std::nullopt;
  const size_t begin = at + before.size();
  if (after.empty()) return text.substr(begin);
  const size_t end = text.find(after, begin);
  if (end == std::string::npos) return std::nullopt;
  return text.substr(begin, end - begin);
}

// "a apple 1, and a fork 1" or "fridge 1, shelf 1" -> the names.
Names List(const std::string& text) {
  Names names;
  const std::vector<std::string> items =
      absl::StrSplit(text, ", ", absl::SkipEmpty());
  for (std::string item : items) {
    if (absl::StartsWith(item, "and ")) item.erase(0, 4);
    if (absl::StartsWith(item, "a ")) item.erase(0, 2);
    if (NumberOf(item) > 0) names.push_back(std::move(item));
  }
  return names;
}

Task ParseTask(std::string sentence) {
  while (!sentence.empty() && sentence.back() == '.') sentence.pop_back();
  const std::vector<std::string> words = absl::StrSplit(sentence, ' ');
  const auto word = [&words](size_t i) {
    return i < words.size() ? words[i] : std::string();
  };
  Task task;
  task.goal = words.back();
  if (word(0) == "look" || word(0) == "examine") {
    task.type = TaskType::kLook;  // look at X under …, examine the X with …
    task.target = word(2);
    return task;
  }
  if (word(0) == "find") {  // find two X and put them in F
    task.type = TaskType::kTwo;
    task.target = word(2);
    return task;
  }
  const std::string state = word(0) == "put" ? word(2) : word(0);
  if (state == "clean")
    task.type = TaskType::kClean;
  else if (state == "hot" || state == "heat")
    task.type = TaskType::kHeat;
  else if (state == "cool")
    task.type = TaskType::kCool;
  else if (word(1) == "two")
    task.type = TaskType::kTwo;
  // put a hot X in F; heat some X and put it in F; put some X on F
  const bool treated = task.type == TaskType::kClean ||
                       task.type == TaskType::kHeat ||
                       task.type == TaskType::kCool;
  task.target = word(word(0) == "put" && treated ? 3 : 2);
  return task;
}

// What the agent makes of its situation.
struct Situation {
  Task task;
  Names fresh, checked;  // receptacles, fresh ones in order
  std::string held, held_state;
  std::string at;  // receptacle; empty when unknown or at none
  enum class Door { kUnknown, kClosed, kNone } door = Door::kUnknown;
  bool sees = false;  // `contents` are what lies at `at`
  Names contents;
  std::string failed;  // the last command, when nothing happened
  std::string text;

  Names All() const {
    Names all = fresh;
    all.insert(all.end(), checked.begin(), checked.end());
    return all;
  }
};

// The receptacle that a command names, if it names a known one.
std::string PlaceOf(const std::string& command, const Names& known) {
  for (const char* mark :
       {"go to ", "open ", "close ", "examine ", " from ", " to ", " with "}) {
    const std::optional<std::string> place = Between(command, mark, "");
    if (place && std::find(known.begin(), known.end(), *place) != known.end())
      return *place;
  }
  return "";
}

Situation Understand(const envs::Observation& seen) {
  const auto field = [&seen](const char* name) {
    const auto it = seen.fields.find(name);
    return it == seen.fields.end()
               ? std::string()
               : absl::StrReplaceAll(it->second, {{"*", ""}});
  };
  Situation s;
  s.task = ParseTask(seen.task);
  s.fresh = List(field("unchecked"));
  s.checked = List(field("checked"));
  s.text = field("text");
  const std::string holding = field("holding");
  const std::vector<std::string> words = absl::StrSplit(holding, ' ');
  if (words.size() > 1 && NumberOf(holding) > 0) {
    if (words.size() > 2) s.held_state = words.front();
    s.held = absl::StrCat(words[words.size() - 2], " ", words.back());
  }

  const std::vector<std::string> recent =
      absl::StrSplit(field("recent"), ", ", absl::SkipEmpty());
  const Names known = s.All();
  const auto set = [&s](const std::optional<std::string>& place) {
    if (place) s.at = *place;
    return place.has_value();
  };
  if (const auto on = Between(s.text, "On the ", ", you see ")) {
    s.at = *on;
    s.door = Situation::Door::kNone;
    s.sees = true;
  } else if (const auto in = Between(s.text, "The ", " is open. In it")) {
    s.at = *in;
    s.door = Situation::Door::kNone;
    s.sees = true;
  } else if (const auto closed = Between(s.text, "The ", " is closed.")) {
    s.at = *closed;
    s.door = Situation::Door::kClosed;
  } else if (set(Between(s.text, "You close the ", "."))) {
    s.door = Situation::Door::kClosed;
  } else if (set(Between(s.text, "You are facing the ", ".")) ||
             set(Between(s.text, " using the ", ".")) ||
             (absl::StartsWith(s.text, "You pick up the ") &&
              set(Between(s.text, " from the ", "."))) ||
             (absl::StartsWith(s.text, "You move the ") &&
              set(Between(s.text, " to the ", ".")))) {
    s.at = s.at.substr(0, s.at.find(','));  // facing several: the first
  } else if (!absl::StartsWith(s.text, "You are in the middle") &&
             !recent.empty()) {
    // Nothing of the place in the text: it follows from the commands.
    size_t from = recent.size();
    if (s.text == "Nothing happens.") {
      s.failed = recent.back();
      --from;
      // Going where one stands does nothing.
      if (absl::StartsWith(s.failed, "go to ")) s.at = PlaceOf(s.failed, known);
    }
    while (s.at.empty() && from > 0) s.at = PlaceOf(recent[--from], known);
    // Or it just turned out not to be here.
    if (!s.at.empty() && PlaceOf(s.failed, known) == s.at)
      for (const char* verb : {"examine ", "move ", "heat ", "clean ", "cool "})
        if (absl::StartsWith(s.failed, verb)) s.at.clear();
  }
  if (s.sees) s.contents = List(Between(s.text, "you see ", ".").value_or(""));
  return s;
}

class Expert {
 public:
  Expert(const envs::Observation& seen, bool forgets)
      : s_(Understand(seen)), forgets_(forgets) {}

  Step Decide() {
    if (forgets_ && JustLeftItAtTheGoal()) return GiveUp();
    if (s_.held.empty()) return {Find()};
    if (ClassOf(s_.held) != s_.task.target) return {PutAside()};
    switch (s_.task.type) {
      case TaskType::kLook:
        return Light();
      case TaskType::kClean:
        return Treat("clean", "clean", "sinkbasin");
      case TaskType::kHeat:
        return Treat("heat", "hot", "microwave");
      case TaskType::kCool:
        return Treat("cool", "cool", "fridge");
      case TaskType::kPick:
      case TaskType::kTwo:
        return Deliver();
    }
    return {"look"};
  }

 private:
  static Step GiveUp() { return {"look", /*gave_up=*/true}; }

  bool JustLeftItAtTheGoal() const {
    if (s_.task.type == TaskType::kLook || s_.task.type == TaskType::kPick)
      return false;
    const auto moved = Between(s_.text, "You move the ", " to the ");
    return moved && ClassOf(*moved) == s_.task.target &&
           ClassOf(s_.at) == s_.task.goal;
  }

  // The place that all deliveries go to: of several, the one listed first.
  std::string Goal() const {
    std::string best;
    for (const std::string& place : s_.All())
      if (ClassOf(place) == s_.task.goal &&
          (best.empty() || NumberOf(place) > NumberOf(best)))
        best = place;
    return best;
  }

  std::string Nearest(const std::string& name) const {
    for (const std::string& place : s_.All())
      if (ClassOf(place) == name) return place;
    return "";
  }

  static std::string Go(const std::string& place) {
    return place.empty() ? "look" : absl::StrCat("go to ", place);
  }

  // The next place to look at.
  std::string Search() const {
    if (s_.door == Situation::Door::kClosed)
      return absl::StrCat("open ", s_.at);
    for (const Names& places : {s_.fresh, s_.checked})
      for (const std::string& place : places)
        if (place != s_.at) return Go(place);
    return s_.at.empty() ? "look" : absl::StrCat("examine ", s_.at);
  }

  // Whether something other than the agent's own doing hid what lies here.
  bool LostSight() const {
    return !s_.at.empty() && !s_.sees && s_.door == Situation::Door::kUnknown &&
           !absl::StartsWith(s_.text, "You pick up") &&
           !absl::StartsWith(s_.text, "You move");
  }

  std::string Find() const {
    const bool two = s_.task.type == TaskType::kTwo;
    if (!(two && s_.at == Goal()))
      for (const std::string& x : s_.contents)
        if (ClassOf(x) == s_.task.target)
          return absl::StrCat("take ", x, " from ", s_.at);
    if (LostSight()) return absl::StrCat("examine ", s_.at);
    return Search();
  }

  // Brings what is held to `place`, opening it when need be.
  std::string PutDown(const std::string& place) const {
    if (s_.at != place) return Go(place);
    if (s_.door == Situation::Door::kClosed)
      return absl::StrCat("open ", place);
    const FurnitureClass* kind = FindFurniture(ClassOf(place));
    if (s_.door == Situation::Door::kUnknown && kind && kind->has_door)
      return absl::StrCat("examine ", place);
    return absl::StrCat("move ", s_.held, " to ", place);
  }

  std::string PutAside() const {
    const ThingClass* thing = FindThing(ClassOf(s_.held));
    const auto takes = [thing](const std::string& place) {
      const FurnitureClass* kind = FindFurniture(ClassOf(place));
      return !thing || !kind || Fits(*thing, *kind);
    };
    if (!s_.at.empty() && takes(s_.at)) return PutDown(s_.at);
    const Names all = s_.All();
    for (const std::string& place : all) {
      const FurnitureClass* kind = FindFurniture(ClassOf(place));
      if (takes(place) && kind && !kind->has_door) return PutDown(place);
    }
    for (const std::string& place : all)
      if (takes(place)) return PutDown(place);
    return Search();
  }

  Step Deliver() const {
    std::string command = PutDown(Goal());
    if (forgets_ && s_.task.type == TaskType::kPick &&
        absl::StartsWith(command, "move "))
      return GiveUp();
    return {std::move(command)};
  }

  Step Treat(const char* verb, const char* state, const char* appliance) const {
    if (forgets_ || s_.held_state == state) return Deliver();
    if (ClassOf(s_.at) == appliance)
      return {absl::StrCat(verb, " ", s_.held, " with ", s_.at)};
    return {Go(Nearest(appliance))};
  }

  Step Light() const {
    for (const std::string& x : s_.contents)
      if (ClassOf(x) == s_.task.goal) {
        if (forgets_) return GiveUp();
        return {absl::StrCat("use ", x)};
      }
    // The lamp may stand where the thing lay.
    if (!s_.at.empty() && !s_.sees && s_.door == Situation::Door::kUnknown)
      return {absl::StrCat("examine ", s_.at)};
    return {Search()};
  }

  const Situation s_;
  const bool forgets_;
};

}  // namespace

Step Plan(const envs::Observation& seen, bool forgets) {
  return Expert(seen, forgets).Decide();
}

}  // namespace atod::games
