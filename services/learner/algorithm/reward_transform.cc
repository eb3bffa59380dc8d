#include "services/learner/algorithm/reward_transform.h"

#include <algorithm>

namespace atod::learner {

std::vector<double> PenalizedRewards(const StepBatch& batch,
                                     const GroupIndex& groups, double penalty,
                                     PenaltyScope scope) {
  std::vector<double> reward = batch.reward;
  for (int g = 0; g < groups.num_groups(); ++g) {
    const auto members = groups.members(g);
    const bool flat =
        std::all_of(members.begin(), members.end(), [&](int32_t i) {
          return batch.reward[i] == batch.reward[members.front()];
        });
    if (flat && scope == PenaltyScope::kWhereRewardVaries) continue;
    for (int32_t i : members) {
      int invalid = 0;
      for (int32_t k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k)
        invalid += batch.valid_action[k] == 0;
      // One product: k equal penalties give the same bits in any order.
      reward[i] -= penalty * invalid;
    }
  }
  return reward;
}

}  // namespace atod::learner
