#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/envs/environment.h"

namespace atod::envs {

inline constexpr std::string_view kTaskTypes[] = {
    "look_at_obj_in_light",           "pick_and_place_simple",
    "pick_clean_then_place_in_recep", "pick_cool_then_place_in_recep",
    "pick_heat_then_place_in_recep",  "pick_two_obj_and_place"};

// One *.tw-pddl file that can be played.
struct FoundGame {
  std::string split;
  std::string task_id;  // path below the split, without the extension
  std::string path;
  std::string category;
  std::string content_hash;
  std::optional<bool> solvable;  // as the file says
};

struct GameFolder {
  std::vector<FoundGame> games;  // by path
  std::vector<LeftOut> left_out;
};

// The games of a folder whose sub-folders are splits of *.tw-pddl files at any
// depth; files right in the folder are split "games". Each file counts once, by
// device and inode. What lies below a split's folder belongs to it: a link that
// leads elsewhere is left out, and no link to a folder is followed except a
// split's own. Left out, too, with the reason: hidden files (AppleDouble's "._"
// among them), names that are no UTF-8, a second file for one task, what is a
// folder or no regular file, cannot be read, is empty, is no JSON object, has a
// key twice or lacks one of the game's three texts, what says itself
// that it is not solvable; and, where an ALFRED record (traj_data.json) lies
// beside it, what ALFWorld's own rule leaves out.
//
// `data` may also be one such file, which is used in any case (split "games").
//
// Texts are not compiled here: LoadGame does that. INVALID_ARGUMENT when the
// folder itself cannot be read.
absl::StatusOr<GameFolder> FindGames(const std::string& data);

// What one file says of itself. Errors name it.
absl::StatusOr<FoundGame> InspectGame(const std::string& path,
                                      const std::string& task_id);

}  // namespace atod::envs
