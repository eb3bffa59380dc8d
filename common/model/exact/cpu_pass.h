#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "ATen/Parallel.h"
#include "common/model/exact/cpu_decoder.h"
#include "common/model/exact/cpu_kernels.h"

// What the forward and the backward pass of cpu_decoder.h share.
namespace atod::model {

// Query rows that share one call of the attention kernels.
inline constexpr int64_t kQueryRows = 24;
// Multiply-adds that are worth a thread.
inline constexpr int64_t kParallelWork = int64_t{1} << 23;

// Hands out consecutive pieces of one buffer.
class Arena {
 public:
  Arena(FloatBuffer& buffer, int64_t floats) {
    if (static_cast<int64_t>(buffer.size()) < floats) buffer.resize(floats);
    next_ = buffer.data();
  }
  explicit Arena(const float* data) : next_(const_cast<float*>(data)) {}
  float* Take(int64_t floats) {
    float* p = next_;
    next_ += floats;
    return p;
  }

 private:
  float* next_;
};

// Some rows of a pass, those of a segment one behind the other.
struct RowSet {
  std::vector<int32_t> positions;  // in their sequences
  std::vector<int64_t> begin{0};   // of the segments, and the end

  int64_t size() const { return static_cast<int64_t>(positions.size()); }
  void EndSegment() { begin.push_back(size()); }
};

// The rows of a pass: all tokens, and those that the last layer still needs.
struct CpuDecoder::Rows {
  RowSet all, outputs;
  std::vector<int32_t> output_rows;  // rows of the outputs among all
  int64_t longest = 0;               // keys of the longest segment, padded
  int64_t scratch_kv = 0;            // largest capacity without own kv

  explicit Rows(const std::vector<CpuSegment>& segments) {
    for (const CpuSegment& s : segments) {
      const int32_t position = static_cast<int32_t>(s.position);
      for (const int32_t i : s.outputs) {
        output_rows.push_back(static_cast<int32_t>(all.size()) + i);
        outputs.positions.push_back(position + i);
      }
      for (int32_t i = 0; i < static_cast<int32_t>(s.num_tokens); ++i)
        all.positions.push_back(position + i);
      all.EndSegment();
      outputs.EndSegment();
      longest = std::max(longest, PadToPanel(s.position + s.num_tokens));
      if (s.kv.data == nullptr)
        scratch_kv = std::max(scratch_kv, PadToPanel(s.num_tokens));
    }
  }
  // Rows whose output a layer owes.
  const RowSet& Queries(bool last_layer) const {
    return last_layer ? outputs : all;
  }
};

// What a layer leaves for the backward pass.
struct CpuDecoder::Activations {
  float* x;        // [rows, hidden] its input
  float* kv;       // [rows, 2 kv_width] keys and values before norm and RoPE
  float* q;        // [queries, q_width] before norm and RoPE
  float* attn;     // [queries, q_width] attention output
  float* mid;      // [queries, hidden] residual stream after attention
  float* gate_up;  // [queries, 2 ffn]

  static int64_t Floats(const CpuDecoder& d, int64_t rows, int64_t queries) {
    return rows * (d.hidden_ + 2 * d.kv_width_) +
           queries * (2 * d.q_width_ + d.hidden_ + 2 * d.ffn_);
  }
  Activations(const CpuDecoder& d, int64_t rows, int64_t queries, Arena arena)
      : x(arena.Take(rows * d.hidden_)),
        kv(arena.Take(rows * 2 * d.kv_width_)),
        q(arena.Take(queries * d.q_width_)),
        attn(arena.Take(queries * d.q_width_)),
        mid(arena.Take(queries * d.hidden_)),
        gate_up(arena.Take(queries * 2 * d.ffn_)) {}
};

// Where the activations of the layers lie: one behind the other in a tape, or
// in two places in turn (a layer's output is the next one's input). The last
// layer's are smaller, and the stream behind it follows them.
struct CpuDecoder::Stack {
  const CpuDecoder& decoder;
  int64_t rows, outputs;
  bool kept;  // a tape
  float* data = nullptr;

  int64_t LayerFloats() const {
    return Activations::Floats(decoder, rows, rows);
  }
  int64_t Floats() const {
    const int64_t layers = static_cast<int64_t>(decoder.layers_.size());
    return (kept ? layers - 1 : 2) * LayerFloats() +
           Activations::Floats(decoder, rows, outputs) +
           outputs * decoder.hidden_;
  }
  Activations At(int64_t layer) const {
    const int64_t last = static_cast<int64_t>(decoder.layers_.size()) - 1;
    const int64_t place = kept ? layer : (layer == last ? 2 : layer % 2);
    return {decoder, rows, layer == last ? outputs : rows,
            Arena(data + place * LayerFloats())};
  }
  // The residual stream behind the last layer [outputs, hidden].
  float* Final() const { return data + Floats() - outputs * decoder.hidden_; }
};

inline void Gather(int64_t width, const std::vector<int32_t>& rows,
                   const float* from, float* to) {
  for (const int32_t row : rows) {
    std::memcpy(to, from + row * width, width * sizeof(float));
    to += width;
  }
}

// Large products share their columns among the threads, unless the caller is
// one of several: which thread computes an output does not change it.
inline void Linear(int64_t rows, int64_t in, int64_t out, const float* x,
                   const FloatBuffer& panels, float* y, bool accumulate) {
  const int64_t grain = std::max<int64_t>(
      1, kParallelWork / std::max<int64_t>(1, rows * in * kPanel));
  at::parallel_for(0, PadToPanel(out) / kPanel, grain,
                   [&](int64_t begin, int64_t end) {
                     const int64_t first = begin * kPanel;
                     Gemm(rows, in, std::min(out, end * kPanel) - first,
                          {x, in}, {panels.data() + first * in, in * kPanel},
                          y + first, out, accumulate);
                   });
}

}  // namespace atod::model
