#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/envs/games/generator.h"

namespace atod::games {

// What the manifest says of one game.
struct GameRow {
  std::string path;  // of game.tw-pddl, below the collection's folder
  std::string task_type;
  std::string content_hash;  // of the file's bytes
  std::string scene_hash;
  int receptacles = 0;
  int objects = 0;  // portable things
  int plan = 0;     // commands of the walkthrough
  int turns = 0;    // of the expert, who searches
};

struct Manifest {
  std::string options;  // JSON of the generator's options
  int layouts_new_to_train = 0;
  std::map<std::string, std::vector<GameRow>> splits;
};

// Writes DIR/<split>/…/game.tw-pddl (and traj_data.json beside it) for every
// game and, last, DIR/manifest.json. A folder that already holds the
// collection of the same options is left alone; any other content of DIR is
// ALREADY_EXISTS.
absl::Status WriteCollection(const Collection& collection,
                             const std::string& dir);

// Reads DIR/manifest.json. Errors name file and field.
absl::StatusOr<Manifest> ReadManifest(const std::string& dir);

// A table of counts: games by type, receptacles, objects and plan lengths of
// each split, beside the published ALFWorld sizes. `compat_data` is the folder
// with recorded ALFWorld games ("" for none): theirs are counted too.
absl::StatusOr<std::string> StatisticsTable(const Manifest& manifest,
                                            const std::string& compat_data);

}  // namespace atod::games
