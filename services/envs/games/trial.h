#pragma once

#include "absl/status/statusor.h"
#include "services/envs/games/generator.h"

namespace atod::games {

// Plays the expert in the game as the engine runs it: the turns it needs to
// win, or limit + 1 when it does not within `limit` turns. Fails when the
// engine refuses the game.
absl::StatusOr<int> ExpertTurns(const Game& game, int limit);

}  // namespace atod::games
