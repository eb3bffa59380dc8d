#pragma once

#include <vector>

#include "common/device/kernels.h"
#include "services/learner/algorithm/aux_loss.h"
#include "services/learner/algorithm/groups.h"
#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

// What group statistics run over.
enum class Unit { kTrajectory, kTurn };

// When an invalid action costs something.
enum class PenaltyOrder {
  kBefore,       // it is part of R(tau)
  kWhereVaries,  // the same, but not in groups whose rewards are all equal
  kAfter,        // off the advantage, in its scale
};

struct RewardOptions {
  Unit statistics = Unit::kTrajectory;
  double penalty = 0;
  // The whole episode pays for each of its invalid turns; kTurn: only the
  // turn itself does.
  Unit penalty_place = Unit::kTrajectory;
  PenaltyOrder penalty_order = PenaltyOrder::kBefore;
  kernels::GroupOptions group;
  double kl_coef = 0;  // of the KL to the reference model in the reward
  KlEstimator kl_estimator = KlEstimator::kK3;
};

// The items of group statistics by group: trajectories as they are, or the
// turns of a group's trajectories. A long trajectory has many turns, so it
// counts more in the second.
GroupIndex StatisticsItems(const StepBatch& batch, const GroupIndex& groups,
                           Unit unit);

// R as the group statistics see it, [items]: the environment's reward of the
// episode, minus penalties that come before statistics, minus the KL.
std::vector<double> ShapedRewards(const StepBatch& batch,
                                  const GroupIndex& groups,
                                  const RewardOptions& options);

// The group advantage of every turn, [turns]: its item's, minus penalties that
// come after statistics.
std::vector<double> TurnAdvantages(const StepBatch& batch,
                                   const std::vector<double>& item_advantage,
                                   const RewardOptions& options);

}  // namespace atod::learner
