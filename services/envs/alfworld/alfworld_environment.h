#pragma once

#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/envs/alfworld/game.h"
#include "services/envs/environment.h"

namespace atod::envs {

struct AlfworldOptions {
  std::string name = "alfworld";
  // A folder whose sub-folders are splits of *.tw-pddl files at any depth
  // (files right in the folder are split "games"), or one such file.
  std::string data;
  std::string prompt_set = "paper";
  uint32_t history_length = 2;
  uint32_t max_turns = 50;
  double success_reward = 10;
  // Names as ALFWorld shows them; false for plain TextWorld games.
  bool demangle = true;
  // Parsed games kept for the next episode.
  size_t cached_games = 256;
};

// Household tasks in ALFWorld's file format. Tasks of a split are in the order
// of their paths; game_folder.h says which files are left out, and the
// description names them. A file that is named itself is used in any case.
//
// Files are read (for their hashes) when the environment is opened and parsed
// at their first episode. Thread-safe.
class AlfworldEnvironment : public Environment {
 public:
  static absl::StatusOr<std::unique_ptr<AlfworldEnvironment>> Open(
      const AlfworldOptions& options);

  const EnvDescription& description() const override { return description_; }
  absl::StatusOr<TaskInfo> GetTask(std::string_view split,
                                   uint32_t index) const override;
  absl::StatusOr<std::unique_ptr<Episode>> Start(
      const EpisodeOptions& options) const override;

 private:
  struct Task {
    TaskInfo info;
    std::string path;
  };
  struct Split {
    std::vector<Task> tasks;  // by path
    absl::flat_hash_map<std::string, size_t> index;
  };

  explicit AlfworldEnvironment(AlfworldOptions options)
      : options_(std::move(options)) {}
  void Describe();  // what is in splits_
  absl::StatusOr<std::shared_ptr<const Game>> Load(
      const std::string& path) const;

  const AlfworldOptions options_;
  EnvDescription description_;
  std::map<std::string, Split, std::less<>> splits_;

  using Cached = std::pair<std::string, std::shared_ptr<const Game>>;
  mutable absl::Mutex mutex_;
  // Last used first.
  mutable std::list<Cached> cache_ ABSL_GUARDED_BY(mutex_);
  mutable absl::flat_hash_map<std::string, std::list<Cached>::iterator>
      cache_index_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace atod::envs
