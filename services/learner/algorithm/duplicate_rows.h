#pragma once

#include <cstdint>
#include <vector>

#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

// Turns to train with twice, so that a step has a multiple of `multiple` turn
// rows: drawn without repetition by (seed, step), again from all once all are
// used. The authors' framework pads a batch so, before statistics; a duplicate
// counts there like any row. Ascending.
std::vector<int32_t> ChooseDuplicates(const StepBatch& batch, int multiple,
                                      uint64_t seed, int step);

// `batch` with the duplicates behind the turns of their own trajectories.
// `source` becomes the turn of `batch` that each turn of the result copies.
StepBatch DuplicateRows(const StepBatch& batch,
                        const std::vector<int32_t>& duplicates,
                        std::vector<int32_t>* source);

}  // namespace atod::learner
