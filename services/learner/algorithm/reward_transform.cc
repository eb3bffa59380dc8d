#include "services/learner/algorithm/reward_transform.h"

#include <algorithm>

namespace atod::learner {
namespace {

int InvalidTurns(const StepBatch& batch, int32_t i) {
  int invalid = 0;
  for (int32_t k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k)
    invalid += batch.valid_action[k] == 0;
  return invalid;
}

// Penalty of turn k of trajectory i. One product: n equal penalties give the
// same bits in any order.
double Penalty(const StepBatch& batch, const RewardOptions& options, int32_t i,
               int32_t k) {
  return options.penalty * (options.penalty_place == Unit::kTrajectory
                                ? InvalidTurns(batch, i)
                                : batch.valid_action[k] == 0);
}

// Sum of the KL estimates of the tokens of turns [begin, end).
double KlOfTurns(const StepBatch& batch, KlEstimator estimator, int32_t begin,
                 int32_t end) {
  double sum = 0;
  for (int32_t t = batch.token_begin[begin]; t < batch.token_begin[end]; ++t)
    sum += KlTerm(batch.old_logprob[t], batch.reference_logprob[t], estimator)
               .loss;
  return sum;
}

}  // namespace

GroupIndex StatisticsItems(const StepBatch& batch, const GroupIndex& groups,
                           Unit unit) {
  if (unit == Unit::kTrajectory) return groups;
  GroupIndex turns;
  for (int g = 0; g < groups.num_groups(); ++g) {
    for (const int32_t i : groups.members(g))
      for (int32_t k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k)
        turns.member.push_back(k);
    turns.begin.push_back(static_cast<int32_t>(turns.member.size()));
  }
  return turns;
}

std::vector<double> ShapedRewards(const StepBatch& batch,
                                  const GroupIndex& groups,
                                  const RewardOptions& options) {
  const bool over_turns = options.statistics == Unit::kTurn;
  std::vector<double> reward(over_turns ? batch.num_turns()
                                        : batch.num_trajectories());
  for (int g = 0; g < groups.num_groups(); ++g) {
    const auto members = groups.members(g);
    const bool flat =
        std::all_of(members.begin(), members.end(), [&](int32_t i) {
          return batch.reward[i] == batch.reward[members.front()];
        });
    const bool pays =
        options.penalty_order == PenaltyOrder::kBefore ||
        (options.penalty_order == PenaltyOrder::kWhereVaries && !flat);
    for (const int32_t i : members) {
      const int32_t first = batch.turn_begin[i], last = batch.turn_begin[i + 1];
      if (!over_turns) {
        reward[i] = batch.reward[i];
        if (pays) reward[i] -= Penalty(batch, options, i, first);
        if (options.kl_coef > 0)
          reward[i] -= options.kl_coef *
                       KlOfTurns(batch, options.kl_estimator, first, last);
        continue;
      }
      for (int32_t k = first; k < last; ++k) {
        reward[k] = batch.reward[i];
        if (pays) reward[k] -= Penalty(batch, options, i, k);
        if (options.kl_coef > 0)
          reward[k] -= options.kl_coef *
                       KlOfTurns(batch, options.kl_estimator, k, k + 1);
      }
    }
  }
  return reward;
}

std::vector<double> TurnAdvantages(const StepBatch& batch,
                                   const std::vector<double>& item_advantage,
                                   const RewardOptions& options) {
  std::vector<double> out(batch.num_turns());
  for (int32_t i = 0; i < batch.num_trajectories(); ++i) {
    for (int32_t k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k) {
      out[k] = item_advantage[options.statistics == Unit::kTurn ? k : i];
      if (options.penalty_order == PenaltyOrder::kAfter)
        out[k] -= Penalty(batch, options, i, k);
    }
  }
  return out;
}

}  // namespace atod::learner
