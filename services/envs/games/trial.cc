#include "services/envs/games/trial.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "services/envs/alfworld/agent_view.h"
#include "services/envs/alfworld/world.h"
#include "services/envs/games/game_file.h"
#include "services/envs/games/planner.h"

namespace atod::games {

absl::StatusOr<int> ExpertTurns(const Game& game, int limit) {
  ATOD_ASSIGN_OR_RETURN(std::shared_ptr<const envs::Game> parsed,
                        envs::MakeGame({.domain = DomainText(),
                                        .grammar = GameGrammar(game),
                                        .problem = ProblemText(game)}));
  envs::World world(parsed);
  ATOD_RETURN_IF_ERROR(world.Reset());
  envs::Observation seen;
  seen.task = absl::StrCat(game.sentence, ".");
  envs::AgentView view(parsed->intro(), seen.task);
  for (int turns = 0; turns <= limit; ++turns) {
    if (world.won()) return turns;
    seen.fields = view.Fields();
    const std::string command = Plan(seen, /*forgets=*/false).command;
    ATOD_RETURN_IF_ERROR(world.Step(command));
    view.Observe(command, world.feedback());
  }
  return limit + 1;
}

}  // namespace atod::games
