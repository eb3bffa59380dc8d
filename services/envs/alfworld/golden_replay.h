#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "services/envs/environment.h"

namespace atod::envs {

struct ReplayCounts {
  int episodes = 0;
  int steps = 0;
  int differences = 0;
  std::string first_difference;  // in full, several lines
};

// Plays one action of the running episode.
using PlayAction = std::function<absl::StatusOr<Observation>(
    uint32_t turn_index, const std::string& action)>;

struct ReplayEpisode {
  Observation first;
  PlayAction play;
};

// Starts an episode of the game a golden file names.
struct GoldenGame {
  std::string env;   // "alfworld" or "textworld"
  std::string path;  // of the game, beside the golden file
};
using StartEpisode = std::function<absl::StatusOr<ReplayEpisode>(
    const GoldenGame& game, uint32_t max_turns)>;

// Replays every episode of the golden file `path` and adds to `counts`. A
// start or a step that differs from the record in feedback, admissible
// commands, score, won or done is one difference.
absl::Status ReplayGolden(const std::string& path, const StartEpisode& start,
                          ReplayCounts& counts);

// Starts episodes in this process.
absl::StatusOr<ReplayEpisode> StartLocally(const GoldenGame& game,
                                           uint32_t max_turns);

}  // namespace atod::envs
