#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/model/exact/cpu_decoder.h"
#include "common/model/exact/cpu_pass.h"

namespace atod::model {
namespace {

void ScatterAdd(int64_t width, const std::vector<int32_t>& rows,
                const float* from, float* to) {
  for (const int32_t row : rows) {
    AddTo(width, from, to + row * width);
    from += width;
  }
}

// dW [out, in] += dy^T x; `panels` is scratch of rows * in floats.
void WeightGradient(int64_t rows, int64_t in, int64_t out, const float* dy,
                    const float* x, float* panels, float* dw) {
  PackPanels(x, rows, in, in, 1, panels);
  Gemm(out, rows, in, {dy, out, /*transposed=*/true}, {panels, rows * kPanel},
       dw, in, /*accumulate=*/true);
}

}  // namespace

// Gradients (d_...) and what is computed again on the way back.
struct CpuDecoder::BackwardSpace {
  float *dx, *d_mid, *normed, *query_normed, *d_normed;  // [rows, hidden]
  float *q_rotated, *dq, *d_attn;                        // [rows, q_width]
  float *k_rotated, *dkv;  // [rows, kv_width], [rows, 2 kv_width]
  float *act, *d_act, *d_gate_up, *panels;
  float *p, *dp;  // [kQueryRows, longest]
  // The keys and values of one head, as right operands [dim, keys] and
  // [keys, dim].
  float *k_columns, *v_columns, *k_rows, *block;

  static int64_t Widest(const CpuDecoder& d) {
    return std::max({d.hidden_, d.q_width_, d.ffn_});
  }
  static int64_t Floats(const CpuDecoder& d, int64_t n, int64_t longest) {
    return n * (5 * d.hidden_ + 3 * d.q_width_ + 3 * d.kv_width_ + 4 * d.ffn_ +
                Widest(d)) +
           2 * kQueryRows * longest + 3 * longest * d.dim_ +
           2 * kQueryRows * d.dim_;
  }
  BackwardSpace(const CpuDecoder& d, int64_t n, int64_t longest, Arena space)
      : dx(space.Take(n * d.hidden_)),
        d_mid(space.Take(n * d.hidden_)),
        normed(space.Take(n * d.hidden_)),
        query_normed(space.Take(n * d.hidden_)),
        d_normed(space.Take(n * d.hidden_)),
        q_rotated(space.Take(n * d.q_width_)),
        dq(space.Take(n * d.q_width_)),
        d_attn(space.Take(n * d.q_width_)),
        k_rotated(space.Take(n * d.kv_width_)),
        dkv(space.Take(n * 2 * d.kv_width_)),
        act(space.Take(n * d.ffn_)),
        d_act(space.Take(n * d.ffn_)),
        d_gate_up(space.Take(n * 2 * d.ffn_)),
        panels(space.Take(n * Widest(d))),
        p(space.Take(kQueryRows * longest)),
        dp(space.Take(kQueryRows * longest)),
        k_columns(space.Take(longest * d.dim_)),
        v_columns(space.Take(longest * d.dim_)),
        k_rows(space.Take(longest * d.dim_)),
        block(space.Take(2 * kQueryRows * d.dim_)) {}
};

void CpuDecoder::FeedForwardBackward(const Layer& w, int64_t queries,
                                     const Activations& a,
                                     const BackwardSpace& s,
                                     float* grads) const {
  SwiGlu(queries, ffn_, a.gate_up, s.act);
  Linear(queries, hidden_, ffn_, s.dx, w.down_back, s.d_act, false);
  WeightGradient(queries, ffn_, hidden_, s.dx, s.act, s.panels,
                 grads + w.d_down);
  SwiGluBackward(queries, ffn_, a.gate_up, s.d_act, s.d_gate_up);
  RmsNorm(queries, hidden_, a.mid, w.post_norm.data(), eps_, s.normed);
  WeightGradient(queries, hidden_, 2 * ffn_, s.d_gate_up, s.normed, s.panels,
                 grads + w.d_gate_up);
  Linear(queries, 2 * ffn_, hidden_, s.d_gate_up, w.gate_up_back, s.d_normed,
         false);
  std::memcpy(s.d_mid, s.dx, queries * hidden_ * sizeof(float));
  RmsNormBackward(queries, hidden_, a.mid, w.post_norm.data(), eps_, s.d_normed,
                  s.d_mid, true, grads + w.d_post_norm);
}

void CpuDecoder::AttendBlockBackward(int64_t m, const int32_t* positions,
                                     int64_t keys, int64_t offset, float* dk,
                                     const BackwardSpace& s) const {
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim_));
  int32_t limits[kQueryRows];
  int64_t seen = 0;
  for (int64_t r = 0; r < m; ++r) {
    limits[r] = positions[r] + 1;
    seen = std::max<int64_t>(seen, limits[r]);
  }
  const int64_t padded = PadToPanel(seen);
  const float* q = s.q_rotated + offset;
  const float* d_out = s.d_attn + offset;
  Gemm(m, dim_, padded, {q, q_width_}, {s.k_columns, dim_ * kPanel}, s.p,
       padded, false);
  CausalSoftmax(m, padded, limits, scale, s.p);
  Gemm(m, dim_, padded, {d_out, q_width_}, {s.v_columns, dim_ * kPanel}, s.dp,
       padded, false);
  CausalSoftmaxBackward(m, padded, scale, s.p, s.dp);
  Gemm(m, seen, dim_, {s.dp, padded}, {s.k_rows, keys * kPanel}, s.dq + offset,
       q_width_, false);
  PackPanels(q, m, dim_, q_width_, 1, s.block);
  Gemm(seen, m, dim_, {s.dp, padded, true}, {s.block, m * kPanel}, dk,
       2 * kv_width_, true);
  PackPanels(d_out, m, dim_, q_width_, 1, s.block);
  Gemm(seen, m, dim_, {s.p, padded, true}, {s.block, m * kPanel},
       dk + kv_width_, 2 * kv_width_, true);
}

void CpuDecoder::AttendBackward(const RowSet& all, const RowSet& queries,
                                const Activations& a,
                                const BackwardSpace& s) const {
  const int64_t group = heads_ / kv_heads_;
  std::fill_n(s.dkv, all.size() * 2 * kv_width_, 0.0f);
  for (size_t i = 0; i + 1 < all.begin.size(); ++i) {
    const int64_t begin = all.begin[i], keys = all.begin[i + 1] - begin;
    for (int64_t h = 0; h < kv_heads_; ++h) {
      const float* k = s.k_rotated + begin * kv_width_ + h * dim_;
      const float* v = a.kv + (2 * begin + 1) * kv_width_ + h * dim_;
      PackPanels(k, dim_, keys, 1, kv_width_, s.k_columns);
      PackPanels(v, dim_, keys, 1, 2 * kv_width_, s.v_columns);
      PackPanels(k, keys, dim_, kv_width_, 1, s.k_rows);
      float* const dk = s.dkv + begin * 2 * kv_width_ + h * dim_;
      for (int64_t g = 0; g < group; ++g) {
        const int64_t end = queries.begin[i + 1];
        for (int64_t r = queries.begin[i]; r < end; r += kQueryRows)
          AttendBlockBackward(std::min(kQueryRows, end - r),
                              &queries.positions[r], keys,
                              r * q_width_ + (h * group + g) * dim_, dk, s);
      }
    }
  }
}

void CpuDecoder::RotateBack(const RowSet& rows, int64_t heads,
                            const FloatBuffer& norm, const float* x, float* d,
                            int64_t stride, float* d_norm) const {
  const int64_t half = dim_ / 2;
  for (int64_t i = 0; i < rows.size(); ++i) {
    float* row = d + i * stride;
    for (int64_t h = 0; h < heads; ++h)
      Rotate(dim_, row + h * dim_, &cos_[rows.positions[i] * half],
             &sin_[rows.positions[i] * half], true, row + h * dim_);
    RmsNormBackward(heads, dim_, x + i * stride, norm.data(), eps_, row, row,
                    false, d_norm);
  }
}

void CpuDecoder::ProjectBackward(const Layer& w, const Rows& rows,
                                 bool last_layer, const Activations& a,
                                 const BackwardSpace& s, float* grads) const {
  const int64_t n = rows.all.size();
  const int64_t queries = rows.Queries(last_layer).size();
  RmsNorm(n, hidden_, a.x, w.input_norm.data(), eps_, s.normed);
  WeightGradient(n, hidden_, 2 * kv_width_, s.dkv, s.normed, s.panels,
                 grads + w.d_kv);
  Linear(n, 2 * kv_width_, hidden_, s.dkv, w.kv_back, s.d_normed, false);
  if (last_layer) {
    Gather(hidden_, rows.output_rows, s.normed, s.query_normed);
    WeightGradient(queries, hidden_, q_width_, s.dq, s.query_normed, s.panels,
                   grads + w.d_q);
    Linear(queries, q_width_, hidden_, s.dq, w.q_back, s.query_normed, false);
    ScatterAdd(hidden_, rows.output_rows, s.query_normed, s.d_normed);
    std::fill_n(s.dx, n * hidden_, 0.0f);
    ScatterAdd(hidden_, rows.output_rows, s.d_mid, s.dx);
  } else {
    WeightGradient(n, hidden_, q_width_, s.dq, s.normed, s.panels,
                   grads + w.d_q);
    Linear(n, q_width_, hidden_, s.dq, w.q_back, s.d_normed, true);
    std::memcpy(s.dx, s.d_mid, n * hidden_ * sizeof(float));
  }
  RmsNormBackward(n, hidden_, a.x, w.input_norm.data(), eps_, s.d_normed, s.dx,
                  true, grads + w.d_input_norm);
}

void CpuDecoder::AttentionBackward(const Layer& w, const Rows& rows,
                                   bool last_layer, const Activations& a,
                                   const BackwardSpace& s, float* grads) const {
  const RowSet& queries = rows.Queries(last_layer);
  Linear(queries.size(), hidden_, q_width_, s.d_mid, w.o_back, s.d_attn, false);
  WeightGradient(queries.size(), q_width_, hidden_, s.d_mid, a.attn, s.panels,
                 grads + w.d_o);
  RotateHeads(rows.all.size(), rows.all.positions.data(), kv_heads_, w.k_norm,
              a.kv, 2 * kv_width_, s.k_rotated);
  RotateHeads(queries.size(), queries.positions.data(), heads_, w.q_norm, a.q,
              q_width_, s.q_rotated);
  AttendBackward(rows.all, queries, a, s);
  // Through RoPE and the head norms, in place.
  RotateBack(queries, heads_, w.q_norm, a.q, s.dq, q_width_,
             grads + w.d_q_norm);
  RotateBack(rows.all, kv_heads_, w.k_norm, a.kv, s.dkv, 2 * kv_width_,
             grads + w.d_k_norm);
  ProjectBackward(w, rows, last_layer, a, s, grads);
}

void CpuDecoder::Backward(const std::vector<CpuSegment>& segments,
                          const CpuTape& tape, const float* d_hidden,
                          FloatBuffer& workspace, float* grads) const {
  const Rows rows(segments);
  const int64_t n = rows.all.size();
  const int64_t last = static_cast<int64_t>(layers_.size()) - 1;
  // The tape is only read.
  const Stack stack{*this, n, rows.outputs.size(), true,
                    const_cast<float*>(tape.data.data())};
  const BackwardSpace s(
      *this, n, rows.longest,
      Arena(workspace, BackwardSpace::Floats(*this, n, rows.longest)));
  RmsNormBackward(rows.outputs.size(), hidden_, stack.Final(), norm_.data(),
                  eps_, d_hidden, s.dx, false, grads + d_norm_);
  for (int64_t l = last; l >= 0; --l) {
    const Activations a = stack.At(l);
    FeedForwardBackward(layers_[l], rows.Queries(l == last).size(), a, s,
                        grads);
    AttentionBackward(layers_[l], rows, l == last, a, s, grads);
  }
  const float* dx = s.dx;
  for (const CpuSegment& segment : segments)
    for (int64_t i = 0; i < segment.num_tokens; ++i, dx += hidden_)
      AddTo(hidden_, dx, grads + d_embed_ + segment.tokens[i] * hidden_);
}

void CpuDecoder::LogitsBackward(int64_t rows, const float* hidden,
                                const float* d_logits, float* d_hidden,
                                FloatBuffer& workspace, float* grads) const {
  Linear(rows, config_.vocab_size, hidden_, d_logits, head_back_, d_hidden,
         false);
  Arena space(workspace, rows * hidden_);
  WeightGradient(rows, hidden_, config_.vocab_size, d_logits, hidden,
                 space.Take(rows * hidden_), grads + d_head_);
}

}  // namespace atod::model
