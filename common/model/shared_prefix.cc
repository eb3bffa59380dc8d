#include "common/model/shared_prefix.h"

#include <algorithm>
#include <numeric>

namespace atod::model {
namespace {

// Tokens of a sequence that others may compute for it: the hidden state of the
// token before the first scored one is its own.
int64_t Shareable(const ScoredSequence& s) {
  if (s.region.rows > 0 || s.spans.empty()) return 0;
  return static_cast<int64_t>(s.spans.front().begin) - 1;
}

int64_t Common(const ScoredSequence& a, const ScoredSequence& b) {
  const int64_t most = std::min(Shareable(a), Shareable(b));
  return std::mismatch(a.tokens.begin(), a.tokens.begin() + most,
                       b.tokens.begin())
             .first -
         a.tokens.begin();
}

}  // namespace

std::vector<SharedPrefix> FindSharedPrefixes(
    absl::Span<const ScoredSequence> batch, int64_t least) {
  // Sequences with equal beginnings are neighbours in the order of tokens.
  std::vector<int32_t> order(batch.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return batch[a].tokens < batch[b].tokens;
  });
  std::vector<SharedPrefix> out;
  for (size_t i = 0; i < order.size();) {
    SharedPrefix group = {0, {order[i]}};
    size_t next = i + 1;
    for (; next < order.size(); ++next) {
      int64_t common = Common(batch[order[i]], batch[order[next]]);
      common -= common % kCacheUnit;
      if (common < least) break;
      // A shorter one joins when what all lose is less than what it saves.
      const int64_t members = static_cast<int64_t>(group.members.size());
      if (members > 1 && common < group.tokens &&
          (group.tokens - common) * (members - 1) > common)
        break;
      group.tokens = members == 1 ? common : std::min(group.tokens, common);
      group.members.push_back(order[next]);
    }
    i = next;
    if (group.members.size() < 2) continue;
    std::sort(group.members.begin(), group.members.end());
    out.push_back(std::move(group));
  }
  std::sort(out.begin(), out.end(),
            [](const SharedPrefix& a, const SharedPrefix& b) {
              return a.members.front() < b.members.front();
            });
  return out;
}

}  // namespace atod::model
