#include "services/envs/alfworld/game.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "services/envs/alfworld/names.h"
#include "services/envs/alfworld/pddl.h"

namespace atod::envs {

class GameBuilder {
 public:
  static absl::StatusOr<std::shared_ptr<Game>> Build(
      const GameText& text, const GameOptions& options) {
    std::shared_ptr<Game> game(new Game());
    ATOD_ASSIGN_OR_RETURN(const PddlDomain domain,
                          ParsePddlDomain(text.domain, "pddl_domain"));
    ATOD_ASSIGN_OR_RETURN(const PddlProblem problem,
                          ParsePddlProblem(text.problem, "pddl_problem"));
    ATOD_ASSIGN_OR_RETURN(game->grammar_, ParseGrammar(text.grammar));
    std::vector<std::string> actions;
    for (const PddlAction& action : domain.actions)
      actions.push_back(action.name);
    ATOD_RETURN_IF_ERROR(CheckGrammar(game->grammar_, actions));
    ATOD_ASSIGN_OR_RETURN(
        game->compiled_,
        Compile(domain, problem, RecordedPredicates(game->grammar_)));
    const CompiledGame& compiled = game->compiled_;
    ResolveGrammar(compiled.vocabulary, game->grammar_);
    for (const std::string& id : compiled.vocabulary.objects)
      game->names_.push_back({id, id});
    if (options.demangle) {
      std::vector<std::string> ids;
      for (const ObjectId object : compiled.entities)
        ids.push_back(compiled.vocabulary.objects[object]);
      const std::vector<std::string> names = DemangledNames(ids);
      for (size_t i = 0; i < names.size(); ++i)
        game->names_[compiled.entities[i]].name = names[i];
    }
    const Facts facts(compiled.vocabulary, compiled.fixed, compiled.initial);
    std::vector<BoundVar> nothing;
    ATOD_RETURN_IF_ERROR(TextWriter(game->grammar_, game->names_, facts)
                             .WriteRule("intro", nothing, game->intro_));
    return game;
  }

  static absl::StatusOr<std::shared_ptr<const Game>> FromText(
      const GameText& text, const GameOptions& options) {
    ATOD_ASSIGN_OR_RETURN(std::shared_ptr<Game> game, Build(text, options));
    game->content_hash_ = HashHex(
        absl::StrCat(text.domain, "\n", text.grammar, "\n", text.problem));
    return std::shared_ptr<const Game>(std::move(game));
  }

  static absl::StatusOr<std::shared_ptr<const Game>> FromJson(
      std::string_view bytes, const GameOptions& options) {
    ATOD_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(bytes, ""));
    if (!json.is_object())
      return BadInput({"", "", 0, absl::StrCat("a JSON ", json.type_name()),
                       "a game: one JSON object"});
    GameText text;
    for (auto& [key, field] :
         {std::pair<const char*, std::string*>{"pddl_domain", &text.domain},
          {"grammar", &text.grammar},
          {"pddl_problem", &text.problem}}) {
      const auto it = json.find(key);
      if (it == json.end())
        return BadInput({"", key, 0, "nothing", "a string"});
      if (!it->is_string())
        return BadInput(
            {"", key, 0, absl::StrCat("a JSON ", it->type_name()), "a string"});
      *field = it->get<std::string>();
    }
    ATOD_ASSIGN_OR_RETURN(std::shared_ptr<Game> game, Build(text, options));
    const auto solvable = json.find("solvable");
    if (solvable != json.end() && solvable->is_boolean())
      game->solvable_ = solvable->get<bool>();
    const auto walkthrough = json.find("walkthrough");
    if (walkthrough != json.end() && walkthrough->is_array())
      for (const nlohmann::json& command : *walkthrough)
        if (command.is_string())
          game->walkthrough_.push_back(command.get<std::string>());
    game->content_hash_ = HashHex(bytes);
    return std::shared_ptr<const Game>(std::move(game));
  }
};

std::string_view Game::DisplayName(std::string_view id) const {
  const ObjectId object = compiled_.vocabulary.FindObject(id);
  return object == kNoObject ? std::string_view() : names_[object].name;
}

absl::StatusOr<std::shared_ptr<const Game>> MakeGame(
    const GameText& text, const GameOptions& options) {
  return GameBuilder::FromText(text, options);
}

absl::StatusOr<std::shared_ptr<const Game>> ParseGame(
    std::string_view json, const GameOptions& options) {
  return GameBuilder::FromJson(json, options);
}

absl::StatusOr<std::shared_ptr<const Game>> LoadGame(
    const std::string& path, const GameOptions& options) {
  ATOD_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  absl::StatusOr<std::shared_ptr<const Game>> game =
      GameBuilder::FromJson(bytes, options);
  if (!game.ok()) return WithFile(game.status(), path);
  return game;
}

}  // namespace atod::envs
