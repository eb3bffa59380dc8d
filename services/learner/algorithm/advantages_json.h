#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "services/learner/algorithm/recipe.h"

namespace atod::learner {

// What `atod advantages` computes: `text` is a batch in JSON (`file` names it
// in messages), the result one line of JSON in the same order of trajectories.
// Both formats are in docs/advantages.md; outside checks rely on them. `seed`
// chooses duplicated rows.
absl::StatusOr<std::string> AdvantagesOfJson(const std::string& text,
                                             const std::string& file,
                                             const Recipe& recipe, int step,
                                             uint64_t seed = 0);

}  // namespace atod::learner
