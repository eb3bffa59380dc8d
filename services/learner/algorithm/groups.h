#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace atod::learner {

// Trajectories by group, from the group numbers and never from adjacency:
// members of the g-th group (ascending number) are
// member[begin[g] .. begin[g + 1]), in row order.
struct GroupIndex {
  std::vector<int32_t> begin{0};
  std::vector<int32_t> member;

  int num_groups() const { return static_cast<int>(begin.size()) - 1; }
  absl::Span<const int32_t> members(int g) const {
    return absl::MakeConstSpan(member).subspan(begin[g],
                                               begin[g + 1] - begin[g]);
  }
};

GroupIndex IndexGroups(absl::Span<const int32_t> group);

}  // namespace atod::learner
