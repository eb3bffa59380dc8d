#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

// How token losses become one loss.
enum class Aggregation {
  kTrajectory,      // token mean of a trajectory, then of trajectories
  kToken,           // one mean over all tokens
  kTurn,            // token mean of a turn, then of all turns
  kTrajectoryTurn,  // token mean of a turn, of its trajectory, then of those
  kMicroBatch,      // token mean of micro-batches of turns, then of those
};

struct AggregationOptions {
  Aggregation how = Aggregation::kTrajectory;
  int rows = 32;  // turns of a micro-batch of kMicroBatch
};

// What each token's loss is multiplied by so that the sum is the update's loss,
// [tokens] of the batch, 0 outside `trajectories`, the rows of one optimiser
// update. Depends on the update as a whole and on nothing smaller, so that any
// split into forwards or over ranks sums to the same loss. Trajectories, turns
// and micro-batches without tokens do not count. The weights of an update add
// up to 1.
//
// kMicroBatch cuts the turns of the update, in their order in `trajectories`,
// into runs of `rows`: the only one whose result depends on that order.
std::vector<double> TokenLossWeights(const StepBatch& batch,
                                     absl::Span<const int32_t> trajectories,
                                     const AggregationOptions& options);

}  // namespace atod::learner
