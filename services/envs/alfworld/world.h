#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "services/envs/alfworld/game.h"

namespace atod::envs {

// One play of a game. Not thread-safe. Usage:
//
//   World world(game);
//   ATOD_RETURN_IF_ERROR(world.Reset());
//   ATOD_RETURN_IF_ERROR(world.Step("go to fridge 1"));
//   world.feedback(), world.admissible(), world.won()
//
// There is no turn limit here; a won game plays on.
class World {
 public:
  explicit World(std::shared_ptr<const Game> game);

  // Starts anew. Fails only when the game's grammar cannot produce its text, or
  // its conditions cannot be searched in a reasonable time.
  absl::Status Reset();
  // Plays one command. One that is not admissible changes nothing and says
  // "Nothing happens."; blanks around it are ignored, case is not.
  absl::Status Step(std::string_view command);

  const std::string& feedback() const { return feedback_; }
  // Commands that would do something now, sorted, each once.
  const std::vector<std::string>& admissible() const { return admissible_; }
  // Whether the last Step's command was admissible.
  bool last_admissible() const { return last_admissible_; }
  bool won() const { return won_; }

  const Game& game() const { return *game_; }
  // For planners: whether predicate(ids…) holds now; all names lower case.
  bool Holds(std::string_view predicate,
             const std::vector<std::string>& ids) const;
  // All argument tuples (ids) of a predicate, ascending.
  std::vector<std::vector<std::string>> FactsOf(
      std::string_view predicate) const;

 private:
  struct Operator {
    std::string command;
    int action;
    std::vector<ObjectId> args;  // of the action's parameters
  };

  Facts facts() const;
  std::vector<BoundVar> Bound(const Action& action,
                              const std::vector<ObjectId>& args) const;
  // Fills operators_ and admissible_ for the present state.
  absl::Status FindOperators();
  bool Changes(const Action& action, const Variant& variant,
               const Binding& binding) const;
  absl::Status Apply(const Operator& op);

  std::shared_ptr<const Game> game_;
  State state_;
  std::vector<Operator> operators_;  // sorted by command
  std::string feedback_;
  std::vector<std::string> admissible_;
  bool last_admissible_ = false;
  bool won_ = false;
};

}  // namespace atod::envs
