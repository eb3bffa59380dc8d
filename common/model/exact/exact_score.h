#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "ATen/Parallel.h"
#include "absl/types/span.h"
#include "common/model/exact/cpu_decoder.h"
#include "common/model/language_model.h"

namespace atod::model {

// Consecutive sequences that run through all layers together, and what the
// backward pass needs of them.
struct ScoreChunk {
  std::vector<CpuSegment> segments;
  std::vector<int32_t> targets;  // one an output
  int64_t first = 0;             // of its outputs in the batch
  FloatBuffer hidden;            // [outputs, hidden_size], if kept
  FloatBuffer lse;               // [outputs]
  CpuTape tape;
};

// A batch cut into chunks. The tokens of the batch are not copied.
struct ScorePlan {
  std::vector<ScoreChunk> chunks;
  int64_t num_scored = 0;
};

// `segment_of` gives the keys of a sequence that lie somewhere already: kv,
// position, prefix and shared of its segment.
using SegmentOf = std::function<CpuSegment(size_t sequence)>;
ScorePlan MakeScorePlan(absl::Span<const ScoredSequence> batch,
                        const SegmentOf& segment_of);

// Calls f(begin, end) for ranges of `count` passes of the decoder, in parallel;
// a few passes of a large model come one after the other, each with all threads
// in its products.
template <typename F>
void ForEachPass(const CpuDecoder& decoder, int64_t count, F f) {
  const bool few = decoder.is_large() && count < at::get_num_threads();
  if (count == 1 || few)
    f(0, count);
  else
    at::parallel_for(0, count, 1, f);
}

// Calls f(row) for rows of `vocab` logits, in parallel where they are worth it
// and the caller is not one of several threads.
template <typename F>
void ForEachRow(int64_t rows, int64_t vocab, F f) {
  constexpr int64_t kLogitsOfThread = 1 << 16;
  at::parallel_for(0, rows, (kLogitsOfThread + vocab - 1) / vocab,
                   [&](int64_t begin, int64_t end) {
                     for (int64_t r = begin; r < end; ++r) f(r);
                   });
}

// Fills `out`, whose vectors have their sizes; `keep` keeps what
// ScoreBackward needs.
void ScoreForward(const CpuDecoder& decoder, ScorePlan& plan,
                  const ScoreOptions& options, bool keep, ScoreOutput& out);

// Adds the gradients of all parameters to `gradients`, in the order of
// ParameterSpecs. `d_entropy` may be null; `entropy` is the forward pass's.
void ScoreBackward(const CpuDecoder& decoder, ScorePlan& plan,
                   float temperature, const float* d_logprobs,
                   const float* d_entropy, const float* entropy,
                   float* gradients);

// Gives the plan's memory to the next one of this thread: fresh memory costs
// page faults.
void Recycle(ScorePlan& plan);

}  // namespace atod::model
