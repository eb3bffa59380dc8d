#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace atod::learner {

// Skill texts by task type, the alternative context of recipe sdar. A file is
// {"skills": [{"category": "...", "text": "..."}]}; a skill without a category
// belongs to every task.
class SkillBank {
 public:
  // INVALID_ARGUMENT names file, line or field.
  static absl::StatusOr<SkillBank> Load(const std::string& path);

  // The texts of a category and those for all, in the file's order, a line
  // each; empty when there are none.
  std::string TextFor(const std::string& category) const;

 private:
  std::vector<std::pair<std::string, std::string>> skills_;
};

}  // namespace atod::learner
