#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace atod::learner {

// Successful episodes by task, as `atod collect` wrote them: one JSON object a
// line, {"split", "content_hash", "task_id", "actions": [...]}. Of several
// episodes of a task the shortest counts, of equally short ones the first.
class StoredEpisodes {
 public:
  // INVALID_ARGUMENT names file, line and field; an episode of another split,
  // of other games than `content_hash` or of more than `max_turns` actions,
  // which would leave the student no turn, is refused.
  static absl::StatusOr<StoredEpisodes> Load(const std::string& path,
                                             const std::string& split,
                                             const std::string& content_hash,
                                             uint32_t max_turns);

  // The actions of a task's episode; none when there is no episode.
  const std::vector<std::string>& ActionsOf(const std::string& task_id) const;

  size_t size() const { return actions_.size(); }

 private:
  std::map<std::string, std::vector<std::string>> actions_;
};

}  // namespace atod::learner
