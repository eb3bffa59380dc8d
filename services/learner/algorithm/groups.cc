#include "services/learner/algorithm/groups.h"

#include <algorithm>
#include <numeric>

namespace atod::learner {

GroupIndex IndexGroups(absl::Span<const int32_t> group) {
  GroupIndex index;
  index.member.resize(group.size());
  std::iota(index.member.begin(), index.member.end(), 0);
  std::stable_sort(index.member.begin(), index.member.end(),
                   [&](int32_t a, int32_t b) { return group[a] < group[b]; });
  for (size_t i = 1; i <= index.member.size(); ++i) {
    if (i == index.member.size() ||
        group[index.member[i]] != group[index.member[i - 1]])
      index.begin.push_back(static_cast<int32_t>(i));
  }
  return index;
}

}  // namespace atod::learner
