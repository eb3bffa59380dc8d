#pragma once

#include <string>

#include "services/envs/games/generator.h"

namespace atod::games {

// household.pddl and household.twl2, embedded at build time.
const std::string& DomainText();
const std::string& GrammarText();  // with the marker "UNKNOWN GOAL"

// The grammar with the game's goal sentence.
std::string GameGrammar(const Game& game);
// The (define (problem …)) text of a game.
std::string ProblemText(const Game& game);

// game.tw-pddl: JSON that ALFWorld's loader and ours read. Further keys:
// task_type, target, goal, scene_hash.
std::string GameFileText(const Game& game);

// traj_data.json with the one key that ALFWorld's own collector needs.
std::string TrajDataText(const Game& game);

// "<split>/<task_type>-<Object>-None-<Receptacle>-<layout>/trial_<hash>", the
// folder of a game inside its collection.
std::string GameFolder(const Game& game);

}  // namespace atod::games
