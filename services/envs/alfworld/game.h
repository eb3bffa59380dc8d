#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/envs/alfworld/compile.h"
#include "services/envs/alfworld/grammar.h"
#include "services/envs/alfworld/text.h"

namespace atod::envs {

struct GameOptions {
  // Names as ALFWorld gives them: class and a number that counts down within
  // the sorted ids ("apple 2"). False: the bare id (plain TextWorld games).
  bool demangle = true;
};

// One playable game: domain, problem and text grammar, parsed and resolved.
// Immutable and thread-safe; any number of Worlds share it.
class Game {
 public:
  const CompiledGame& compiled() const { return compiled_; }
  const Grammar& grammar() const { return grammar_; }
  // Display names by ObjectId.
  const std::vector<EntityName>& names() const { return names_; }
  // Of the object with this lower-case id; empty when unknown.
  std::string_view DisplayName(std::string_view id) const;

  // What the file records beside the game; informational.
  const std::vector<std::string>& walkthrough() const { return walkthrough_; }
  bool solvable() const { return solvable_; }
  // Hash of the file's bytes (of the three texts for MakeGame).
  const std::string& content_hash() const { return content_hash_; }

  // Facts and texts of the start, computed once.
  const std::string& intro() const { return intro_; }

 private:
  friend class GameBuilder;
  Game() = default;
  CompiledGame compiled_;
  Grammar grammar_;
  std::vector<EntityName> names_;
  std::vector<std::string> walkthrough_;
  bool solvable_ = false;
  std::string content_hash_;
  std::string intro_;
};

struct GameText {
  std::string domain;   // PDDL
  std::string grammar;  // twl2
  std::string problem;  // PDDL
};

// Compiles the three texts. Errors name the field ("pddl_domain", "grammar",
// "pddl_problem") and the line inside it.
absl::StatusOr<std::shared_ptr<const Game>> MakeGame(
    const GameText& text, const GameOptions& options = {});
// `json`: the content of a *.tw-pddl file.
absl::StatusOr<std::shared_ptr<const Game>> ParseGame(
    std::string_view json, const GameOptions& options = {});
// Errors also name the file.
absl::StatusOr<std::shared_ptr<const Game>> LoadGame(
    const std::string& path, const GameOptions& options = {});

}  // namespace atod::envs
