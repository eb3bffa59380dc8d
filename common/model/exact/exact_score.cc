#include "common/model/exact/exact_score.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "ATen/Parallel.h"
#include "common/model/exact/cpu_kernels.h"

namespace atod::model {
namespace {

// Tokens that run through all layers together: their activations fit into a
// core's cache.
constexpr int64_t kChunkTokens = 160;
// Parts of a batch with a gradient buffer each. A fixed number, so that sums
// do not depend on the number of threads.
constexpr int64_t kParts = 8;
constexpr int64_t kPartsOfLarge = 2;
constexpr size_t kMostSpareTapes = 1024;
// Rows of logits that exist at a time.
constexpr int64_t kLogitRows = 32;

// The segment of one sequence, without the keys that lie somewhere already.
void AddOutputs(const ScoredSequence& sequence, CpuSegment& segment,
                std::vector<int32_t>& targets) {
  const int32_t position = static_cast<int32_t>(segment.position);
  segment.tokens = sequence.tokens.data() + position;
  for (const TokenSpan& span : sequence.spans) {
    for (uint32_t i = span.begin; i < span.begin + span.length; ++i) {
      segment.outputs.push_back(static_cast<int32_t>(i) - 1 - position);
      targets.push_back(sequence.tokens.at(i));
    }
  }
  const int64_t all = static_cast<int64_t>(sequence.tokens.size()) - position;
  // Nothing after the last scored token matters, unless its keys are wanted.
  if (sequence.region.rows > 0)
    segment.num_tokens = all;
  else if (!segment.outputs.empty())
    segment.num_tokens =
        *std::max_element(segment.outputs.begin(), segment.outputs.end()) + 1;
}

// Memory that a thread keeps between calls.
FloatBuffer& Workspace() {
  thread_local FloatBuffer workspace;
  return workspace;
}

// Tapes of finished passes, for the next one: fresh memory costs page faults.
// Used by the thread that trains only.
std::vector<FloatBuffer>& SpareTapes() {
  thread_local std::vector<FloatBuffer> spare;
  return spare;
}

// Calls f(part, begin, end) on the chunks of every part, in parallel. A single
// chunk leaves the threads to the products inside.
template <typename F>
void ForEachPart(const ScorePlan& plan, int64_t parts, F f) {
  const int64_t n = static_cast<int64_t>(plan.chunks.size());
  if (n == 1) return f(0, 0, 1);
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      f(part, n * part / parts, n * (part + 1) / parts);
  });
}

// The most likely tokens of a row of logits, the lower id of equal ones first.
void TopTokens(int64_t vocab, const float* row, float inv, float lse, int32_t k,
               int32_t* ids, float* logprobs) {
  std::vector<int32_t> order(vocab);
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + k, order.end(),
                    [row](int32_t a, int32_t b) {
                      return row[a] != row[b] ? row[a] > row[b] : a < b;
                    });
  for (int32_t i = 0; i < k; ++i) {
    ids[i] = order[i];
    logprobs[i] = std::min(row[order[i]] * inv - lse, 0.0f);
  }
}

// Log-probs (and what else is wanted) of the outputs of one chunk.
void ScoreHead(const CpuDecoder& decoder, ScoreChunk& chunk,
               const float* hidden, const ScoreOptions& options, bool keep,
               FloatBuffer& logits, ScoreOutput& out) {
  const int64_t vocab = decoder.config().vocab_size;
  const int64_t width = decoder.config().hidden_size;
  const float inv = 1.0f / options.temperature;
  const int64_t outputs = static_cast<int64_t>(chunk.targets.size());
  if (keep) chunk.lse.resize(outputs);
  for (int64_t i = 0; i < outputs; i += kLogitRows) {
    const int64_t rows = std::min(kLogitRows, outputs - i);
    decoder.Logits(rows, &hidden[i * width], logits.data());
    ForEachRow(rows, vocab, [&](int64_t r) {
      const float* row = &logits[r * vocab];
      const float lse = LogSumExp(vocab, row, inv);
      const int64_t at = chunk.first + i + r;
      // Rounding may put the log-prob of a sure token above 0.
      out.logprobs[at] = std::min(row[chunk.targets[i + r]] * inv - lse, 0.0f);
      if (keep) chunk.lse[i + r] = lse;
      if (options.want_entropy) out.entropy[at] = Entropy(vocab, row, inv, lse);
      if (options.top_k > 0)
        TopTokens(vocab, row, inv, lse, options.top_k,
                  &out.top_ids[at * options.top_k],
                  &out.top_logprobs[at * options.top_k]);
    });
  }
}

// x[j] = -p_j (g + e (log p_j + entropy)) with log p_j = x[j] * inv - lse: the
// part of the gradient that all logits of a row have.
void RowGradient(int64_t n, float inv, float lse, float g, float e,
                 float entropy, float* x) {
  for (int64_t j = 0; j < n; ++j) {
    const float logp = x[j] * inv - lse;
    x[j] = -std::exp(logp) * (g + e * (logp + entropy));
  }
}

}  // namespace

ScorePlan MakeScorePlan(absl::Span<const ScoredSequence> batch,
                        const SegmentOf& segment_of) {
  ScorePlan plan;
  int64_t in_chunk = 0;
  for (size_t i = 0; i < batch.size(); ++i) {
    CpuSegment segment = segment_of(i);
    const int64_t length =
        static_cast<int64_t>(batch[i].tokens.size()) - segment.position;
    if (plan.chunks.empty() || in_chunk + length > kChunkTokens) {
      plan.chunks.emplace_back();
      plan.chunks.back().first = plan.num_scored;
      in_chunk = 0;
    }
    in_chunk += length;
    ScoreChunk& chunk = plan.chunks.back();
    AddOutputs(batch[i], segment, chunk.targets);
    plan.num_scored = chunk.first + static_cast<int64_t>(chunk.targets.size());
    chunk.segments.push_back(std::move(segment));
  }
  return plan;
}

void ScoreForward(const CpuDecoder& decoder, ScorePlan& plan,
                  const ScoreOptions& options, bool keep, ScoreOutput& out) {
  const int64_t width = decoder.config().hidden_size;
  if (keep) {
    std::vector<FloatBuffer>& spare = SpareTapes();
    for (ScoreChunk& chunk : plan.chunks) {
      if (spare.empty()) break;
      chunk.tape.data = std::move(spare.back());
      spare.pop_back();
    }
  }
  const auto run = [&](int64_t begin, int64_t end) {
    FloatBuffer scratch, logits(kLogitRows * decoder.config().vocab_size);
    for (int64_t c = begin; c < end; ++c) {
      ScoreChunk& chunk = plan.chunks[c];
      FloatBuffer& hidden = keep ? chunk.hidden : scratch;
      hidden.resize(chunk.targets.size() * width);
      // Without outputs it may still leave keys behind.
      decoder.Forward(chunk.segments, Workspace(), keep ? &chunk.tape : nullptr,
                      hidden.data());
      ScoreHead(decoder, chunk, hidden.data(), options, keep, logits, out);
    }
  };
  ForEachPass(decoder, static_cast<int64_t>(plan.chunks.size()), run);
}

void ScoreBackward(const CpuDecoder& decoder, ScorePlan& plan,
                   float temperature, const float* d_logprobs,
                   const float* d_entropy, const float* entropy,
                   float* gradients) {
  const int64_t vocab = decoder.config().vocab_size;
  const int64_t width = decoder.config().hidden_size;
  const float inv = 1.0f / temperature;
  const int64_t parts = decoder.is_large() ? kPartsOfLarge : kParts;
  std::vector<FloatBuffer> grads(parts);
  ForEachPart(plan, parts, [&](int64_t part, int64_t begin, int64_t end) {
    if (begin == end) return;
    grads[part].assign(decoder.num_parameters(), 0.0f);
    FloatBuffer d_hidden, logits(kLogitRows * vocab);
    for (int64_t c = begin; c < end; ++c) {
      const ScoreChunk& chunk = plan.chunks[c];
      const int64_t outputs = static_cast<int64_t>(chunk.targets.size());
      if (outputs == 0) continue;
      d_hidden.resize(outputs * width);
      for (int64_t i = 0; i < outputs; i += kLogitRows) {
        const int64_t rows = std::min(kLogitRows, outputs - i);
        decoder.Logits(rows, &chunk.hidden[i * width], logits.data());
        for (int64_t r = 0; r < rows; ++r) {
          // d log p(target) / d logits = (onehot - p) / temperature.
          const float g = d_logprobs[chunk.first + i + r] * inv;
          float* row = &logits[r * vocab];
          if (d_entropy == nullptr) {
            ScaledProbabilities(vocab, inv, chunk.lse[i + r], -g, row);
          } else {
            // d entropy / d logits = -p (log p + entropy) / temperature.
            const int64_t at = chunk.first + i + r;
            RowGradient(vocab, inv, chunk.lse[i + r], g, d_entropy[at] * inv,
                        entropy[at], row);
          }
          row[chunk.targets[i + r]] += g;
        }
        decoder.LogitsBackward(rows, &chunk.hidden[i * width], logits.data(),
                               &d_hidden[i * width], Workspace(),
                               grads[part].data());
      }
      decoder.Backward(chunk.segments, chunk.tape, d_hidden.data(), Workspace(),
                       grads[part].data());
    }
  });
  FloatBuffer sum;
  for (FloatBuffer& g : grads) {
    if (g.empty()) continue;
    if (sum.empty())
      sum = std::move(g);
    else
      AddTo(decoder.num_parameters(), g.data(), sum.data());
  }
  if (!sum.empty()) AddTo(decoder.num_parameters(), sum.data(), gradients);
}

void Recycle(ScorePlan& plan) {
  std::vector<FloatBuffer>& spare = SpareTapes();
  for (ScoreChunk& chunk : plan.chunks)
    if (spare.size() < kMostSpareTapes)
      spare.push_back(std::move(chunk.tape.data));
}

}  // namespace atod::model
