#pragma once

#include <cstdint>
#include <vector>

#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

// A run of sampled tokens in a sequence and where its rows are in the batch.
struct TrainSpan {
  uint32_t begin = 0;
  uint32_t length = 0;
  int32_t row = 0;  // first token's index in StepBatch
};

// One token stream that the model runs over. Cut after its last span.
struct TrainSequence {
  int32_t trajectory = 0;  // row in StepBatch
  std::vector<int32_t> tokens;
  std::vector<TrainSpan> spans;
};

// What one step trains on, free of messages so that torch can be included with
// it. Sequences are in canonical order (trajectory, first
// turn), whatever the order of arrival; those without spans are left out.
struct StepData {
  StepBatch batch;  // old_logprob is empty until the learner has computed it
  std::vector<TrainSequence> sequences;
  // The same sampled tokens behind the prompts of the alternative context, for
  // self-distillation; empty without one.
  std::vector<TrainSequence> context_sequences;
  float temperature = 1;  // of sampling; the same in the whole step
};

// Trains the turns `duplicates` (ChooseDuplicates) twice: rows and sequences
// are copied behind those of their trajectory, log-probs with them.
void DuplicateTurns(const std::vector<int32_t>& duplicates, StepData& data);

// Updates of a step of `turns` turns: `per_step`, or when `turns_per_update` is
// over 0 turns / turns_per_update, rounded up, at least 1.
uint32_t UpdatesOf(int turns, uint32_t per_step, uint32_t turns_per_update);

// Which trajectories (rows of the batch) enter which update: a shuffle keyed
// by (seed, step), so that an update is not one task's group, dealt evenly, the
// first updates taking one more when it does not come out even. Every update
// is sorted. Pure.
std::vector<std::vector<int32_t>> SplitUpdates(int num_trajectories,
                                               uint32_t updates, uint64_t seed,
                                               uint32_t step);

// Indices into `sequences`, in order, cut into runs of at most `max_tokens`
// tokens (a longer sequence is a run of its own).
std::vector<std::vector<int32_t>> PackMicroBatches(
    const std::vector<TrainSequence>& sequences,
    const std::vector<int32_t>& chosen, uint32_t max_tokens);

}  // namespace atod::learner
