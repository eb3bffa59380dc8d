#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/envs/environment.h"
#include "services/envs/games/tables.h"

namespace atod::games {

struct DemoOptions {
  std::string split = "train";
  int count = 4000;
  uint64_t seed = 0;
  uint32_t max_turns = 20;
  // Probability that the demonstrator of an episode is the forgetful one, by
  // task type; drawn once an episode.
  std::array<double, kTaskTypes> forget = {};
  // Turns recorded after it gave up; then the episode ends.
  int look_rows = 2;
  // Share of turns whose executed command is not the recorded one but a random
  // one, so that the states after mistakes are seen (DART). Of these commands,
  // `noise_admissible` are admissible.
  double noise = 0.12;
  double noise_admissible = 0.6;
  std::string layout = "windowed";  // of the prompts: RunConfig.layout
};

struct DemoCounts {
  int episodes = 0;
  int rows = 0;
  int forgetful = 0;
  int won = 0;
};

// A turn of a demonstration. Responses are " " and a command.
struct DemoTurn {
  int demo = 0;
  std::string prompt;    // windowed: all of it; growing: what the turn appends
  std::string response;  // the expert's
  std::string executed;  // the same, or noise
};

using DemoSink = std::function<absl::Status(const DemoTurn& turn)>;

// Plays the expert in `env`, whose games must be of the six task types, over
// the shuffled tasks of the split, again and again until `count` episodes are
// played. A pure function of the games and the options.
absl::StatusOr<DemoCounts> PlayDemos(const envs::Environment& env,
                                     const DemoOptions& options,
                                     const DemoSink& sink);

}  // namespace atod::games
