#include "services/learner/step_data.h"

#include <algorithm>
#include <numeric>

#include "common/base/rng.h"
#include "services/learner/algorithm/duplicate_rows.h"

namespace atod::learner {
namespace {

constexpr uint64_t kUpdateStream = 0x75706474;

// The spans of `sequence` that lie in rows [begin, end), moved to start at
// `to`; no spans when there are none.
TrainSequence Part(const TrainSequence& sequence, int32_t begin, int32_t end,
                   int32_t to) {
  TrainSequence out;
  for (const TrainSpan& span : sequence.spans) {
    if (span.row < begin || span.row >= end) continue;
    out.spans.push_back({span.begin, span.length, span.row - begin + to});
  }
  if (out.spans.empty()) return out;
  out.trajectory = sequence.trajectory;
  out.tokens.assign(sequence.tokens.begin(), sequence.tokens.begin() +
                                                 out.spans.back().begin +
                                                 out.spans.back().length);
  return out;
}

}  // namespace

void DuplicateTurns(const std::vector<int32_t>& duplicates, StepData& data) {
  if (duplicates.empty()) return;
  std::vector<int32_t> source;
  StepBatch batch = DuplicateRows(data.batch, duplicates, &source);
  // Sequences of a trajectory by row: originals keep their place in it.
  std::vector<TrainSequence> sequences;
  size_t next = 0;
  for (int i = 0; i < batch.num_trajectories(); ++i) {
    const StepBatch& from = data.batch;
    const size_t begin = next;
    const int32_t shift = batch.token_begin[batch.turn_begin[i]] -
                          from.token_begin[from.turn_begin[i]];
    for (; next < data.sequences.size() && data.sequences[next].trajectory == i;
         ++next) {
      sequences.push_back(data.sequences[next]);
      for (TrainSpan& span : sequences.back().spans) span.row += shift;
    }
    const int32_t originals = from.turn_begin[i + 1] - from.turn_begin[i];
    for (int32_t k = batch.turn_begin[i] + originals;
         k < batch.turn_begin[i + 1]; ++k) {
      for (size_t n = begin; n < next; ++n) {
        TrainSequence part =
            Part(data.sequences[n], from.token_begin[source[k]],
                 from.token_begin[source[k] + 1], batch.token_begin[k]);
        if (!part.spans.empty()) sequences.push_back(std::move(part));
      }
    }
  }
  data.batch = std::move(batch);
  data.sequences = std::move(sequences);
}

uint32_t UpdatesOf(int turns, uint32_t per_step, uint32_t turns_per_update) {
  if (turns_per_update == 0) return per_step;
  const auto n = static_cast<uint32_t>(turns);
  return std::max(1u, n / turns_per_update + (n % turns_per_update > 0));
}

std::vector<std::vector<int32_t>> SplitUpdates(int num_trajectories,
                                               uint32_t updates, uint64_t seed,
                                               uint32_t step) {
  std::vector<int32_t> order(num_trajectories);
  std::iota(order.begin(), order.end(), 0);
  if (updates > 1) Rng(MixSeed(seed, kUpdateStream, step)).Shuffle(order);
  std::vector<std::vector<int32_t>> out(
      std::min<size_t>(updates, std::max<size_t>(order.size(), 1)));
  size_t at = 0;
  for (size_t u = 0; u < out.size(); ++u) {
    const size_t take =
        order.size() / out.size() + (u < order.size() % out.size() ? 1 : 0);
    out[u].assign(order.begin() + at, order.begin() + at + take);
    std::sort(out[u].begin(), out[u].end());
    at += take;
  }
  return out;
}

std::vector<std::vector<int32_t>> PackMicroBatches(
    const std::vector<TrainSequence>& sequences,
    const std::vector<int32_t>& chosen, uint32_t max_tokens) {
  std::vector<std::vector<int32_t>> out;
  size_t tokens = 0;
  for (const int32_t i : chosen) {
    const size_t size = sequences[i].tokens.size();
    if (out.empty() || tokens + size > max_tokens) {
      out.emplace_back();
      tokens = 0;
    }
    out.back().push_back(i);
    tokens += size;
  }
  return out;
}

}  // namespace atod::learner
