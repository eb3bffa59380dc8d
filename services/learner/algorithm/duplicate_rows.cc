#include "services/learner/algorithm/duplicate_rows.h"

#include <algorithm>
#include <numeric>

#include "common/base/rng.h"

namespace atod::learner {
namespace {

constexpr uint64_t kDuplicateStream = 0x64757073;

}  // namespace

std::vector<int32_t> ChooseDuplicates(const StepBatch& batch, int multiple,
                                      uint64_t seed, int step) {
  std::vector<int32_t> chosen;
  const int turns = batch.num_turns();
  if (multiple <= 1 || turns == 0) return chosen;
  const size_t missing = (multiple - turns % multiple) % multiple;
  Rng rng(MixSeed(seed, kDuplicateStream, static_cast<uint64_t>(step)));
  std::vector<int32_t> order(turns);
  std::iota(order.begin(), order.end(), 0);
  while (chosen.size() < missing) {
    rng.Shuffle(order);
    const size_t take = std::min(missing - chosen.size(), order.size());
    chosen.insert(chosen.end(), order.begin(), order.begin() + take);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

StepBatch DuplicateRows(const StepBatch& batch,
                        const std::vector<int32_t>& duplicates,
                        std::vector<int32_t>* source) {
  StepBatch out;
  out.trajectory_id = batch.trajectory_id;
  out.group = batch.group;
  out.reward = batch.reward;
  source->clear();
  auto next = duplicates.begin();
  for (int i = 0; i < batch.num_trajectories(); ++i) {
    for (int k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k)
      source->push_back(k);
    for (; next != duplicates.end() && *next < batch.turn_begin[i + 1]; ++next)
      source->push_back(*next);
    out.turn_begin.push_back(static_cast<int32_t>(source->size()));
  }
  using Column = std::vector<double> StepBatch::*;
  for (const int32_t k : *source) {
    out.turn_index.push_back(batch.turn_index[k]);
    out.valid_action.push_back(batch.valid_action[k]);
    for (const Column column :
         {&StepBatch::rollout_logprob, &StepBatch::old_logprob,
          &StepBatch::teacher_logprob, &StepBatch::reference_logprob,
          &StepBatch::context_logprob}) {
      const std::vector<double>& from = batch.*column;
      if (from.empty()) continue;
      (out.*column)
          .insert((out.*column).end(), from.begin() + batch.token_begin[k],
                  from.begin() + batch.token_begin[k + 1]);
    }
    out.token_begin.push_back(out.token_begin.back() +
                              batch.token_begin[k + 1] - batch.token_begin[k]);
  }
  return out;
}

}  // namespace atod::learner
