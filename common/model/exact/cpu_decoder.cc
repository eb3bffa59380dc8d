#include "common/model/exact/cpu_decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ATen/Parallel.h"
#include "common/model/exact/cpu_kernels.h"

namespace atod::model {
namespace {

// Query rows that share one call of the attention kernels.
constexpr int64_t kQueryRows = 24;
// Multiply-adds that are worth a thread.
constexpr int64_t kParallelWork = int64_t{1} << 23;

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

// The rows of a pass: all tokens, and those that the last layer still needs.
struct Rows {
  std::vector<int32_t> positions;  // of every row
  std::vector<int32_t> outputs;    // rows of the outputs
  std::vector<int32_t> output_positions;
  std::vector<int64_t> begin, output_begin;  // per segment, one more at the end
  int64_t longest = 0;     // keys of the longest segment, padded
  int64_t scratch_kv = 0;  // largest capacity without own kv

  explicit Rows(const std::vector<CpuSegment>& segments) {
    for (const CpuSegment& s : segments) {
      begin.push_back(static_cast<int64_t>(positions.size()));
      output_begin.push_back(static_cast<int64_t>(outputs.size()));
      for (const int32_t i : s.outputs) {
        outputs.push_back(static_cast<int32_t>(begin.back()) + i);
        output_positions.push_back(static_cast<int32_t>(s.position) + i);
      }
      for (int64_t i = 0; i < s.num_tokens; ++i)
        positions.push_back(static_cast<int32_t>(s.position + i));
      longest = std::max(longest, PadToPanel(s.position + s.num_tokens));
      if (s.kv.data == nullptr)
        scratch_kv = std::max(scratch_kv, PadToPanel(s.num_tokens));
    }
    begin.push_back(static_cast<int64_t>(positions.size()));
    output_begin.push_back(static_cast<int64_t>(outputs.size()));
  }
  int64_t size() const { return begin.back(); }
  int64_t num_outputs() const { return output_begin.back(); }
};

void Gather(int64_t width, const std::vector<int32_t>& rows, const float* from,
            float* to) {
  for (const int32_t row : rows) {
    std::memcpy(to, from + row * width, width * sizeof(float));
    to += width;
  }
}

void ScatterAdd(int64_t width, const std::vector<int32_t>& rows,
                const float* from, float* to) {
  for (const int32_t row : rows) {
    AddTo(width, from, to + row * width);
    from += width;
  }
}

// Weights W [out, in]: y = x W^T.
FloatBuffer PackForward(const float* w, int64_t out, int64_t in) {
  FloatBuffer panels(in * PadToPanel(out));
  PackPanels(w, in, out, 1, in, panels.data());
  return panels;
}

// dx = dy W.
FloatBuffer PackBackward(const float* w, int64_t out, int64_t in) {
  FloatBuffer panels(out * PadToPanel(in));
  PackPanels(w, out, in, in, 1, panels.data());
  return panels;
}

// Large products share their columns among the threads, unless the caller is
// one of several: which thread computes an output does not change it.
void Linear(int64_t rows, int64_t in, int64_t out, const float* x,
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

// dW [out, in] += dy^T x; `panels` is scratch of rows * in floats.
void WeightGradient(int64_t rows, int64_t in, int64_t out, const float* dy,
                    const float* x, float* panels, float* dw) {
  PackPanels(x, rows, in, in, 1, panels);
  Gemm(out, rows, in, {dy, out, /*transposed=*/true}, {panels, rows * kPanel},
       dw, in, /*accumulate=*/true);
}

}  // namespace

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

bool CpuDecoder::Supports(const ModelConfig& c) {
  return CpuKernelsSupported() && c.hidden_size % kPanel == 0 &&
         c.intermediate_size % kPanel == 0 && c.head_dim % kPanel == 0;
}

CpuDecoder::CpuDecoder(const ModelConfig& config,
                       const std::vector<const float*>& parameters,
                       int64_t max_positions, bool backward)
    : config_(config),
      hidden_(config.hidden_size),
      ffn_(config.intermediate_size),
      heads_(config.num_attention_heads),
      kv_heads_(config.num_key_value_heads),
      dim_(config.head_dim),
      q_width_(heads_ * dim_),
      kv_width_(kv_heads_ * dim_),
      max_positions_(max_positions) {
  size_t next = 0;
  const auto take = [&](int64_t floats, int64_t& offset) {
    offset = num_parameters_;
    num_parameters_ += floats;
    return parameters[next++];
  };
  const auto norm = [&](int64_t width, int64_t& offset) {
    const float* w = take(width, offset);
    return FloatBuffer(w, w + width);
  };
  const auto matrix = [&](int64_t out, int64_t in, int64_t& offset,
                          FloatBuffer& panels, FloatBuffer& panels_back) {
    const float* w = take(out * in, offset);
    panels = PackForward(w, out, in);
    if (backward) panels_back = PackBackward(w, out, in);
  };
  // Two matrices with the same input, one over the other.
  const auto pair = [&](int64_t out, int64_t in, int64_t& offset,
                        FloatBuffer& panels, FloatBuffer& panels_back) {
    int64_t second;
    FloatBuffer both(2 * out * in);
    std::copy_n(take(out * in, offset), out * in, both.begin());
    std::copy_n(take(out * in, second), out * in, both.begin() + out * in);
    panels = PackForward(both.data(), 2 * out, in);
    if (backward) panels_back = PackBackward(both.data(), 2 * out, in);
  };
  const int64_t vocab = config.vocab_size;
  const float* embed = take(vocab * hidden_, d_embed_);
  embed_.assign(embed, embed + vocab * hidden_);
  layers_.resize(config.num_hidden_layers);
  for (Layer& l : layers_) {
    l.input_norm = norm(hidden_, l.d_input_norm);
    matrix(q_width_, hidden_, l.d_q, l.q, l.q_back);
    pair(kv_width_, hidden_, l.d_kv, l.kv, l.kv_back);
    l.q_norm = norm(dim_, l.d_q_norm);
    l.k_norm = norm(dim_, l.d_k_norm);
    matrix(hidden_, q_width_, l.d_o, l.o, l.o_back);
    l.post_norm = norm(hidden_, l.d_post_norm);
    pair(ffn_, hidden_, l.d_gate_up, l.gate_up, l.gate_up_back);
    matrix(hidden_, ffn_, l.d_down, l.down, l.down_back);
  }
  norm_ = norm(hidden_, d_norm_);
  const float* head = embed;
  d_head_ = d_embed_;
  if (!config.tie_word_embeddings) head = take(vocab * hidden_, d_head_);
  head_ = PackForward(head, vocab, hidden_);
  if (backward) head_back_ = PackBackward(head, vocab, hidden_);

  const int64_t half = dim_ / 2;
  FloatBuffer frequency(half);
  for (int64_t j = 0; j < half; ++j)
    frequency[j] =
        1.0f / std::pow(static_cast<float>(config.rope_theta),
                        static_cast<float>(2 * j) / static_cast<float>(dim_));
  cos_.resize(max_positions * half);
  sin_.resize(max_positions * half);
  for (int64_t p = 0; p < max_positions; ++p) {
    for (int64_t j = 0; j < half; ++j) {
      const float angle = static_cast<float>(p) * frequency[j];
      cos_[p * half + j] = std::cos(angle);
      sin_[p * half + j] = std::sin(angle);
    }
  }
}

// y [rows, heads * dim] = RoPE(RmsNorm of each head of x).
void CpuDecoder::RotateHeads(int64_t row_count, const int32_t* positions,
                             int64_t heads, const FloatBuffer& norm,
                             const float* x, int64_t x_stride, float* y) const {
  const int64_t half = dim_ / 2;
  const float eps = static_cast<float>(config_.rms_norm_eps);
  for (int64_t i = 0; i < row_count; ++i, y += heads * dim_) {
    RmsNorm(heads, dim_, x + i * x_stride, norm.data(), eps, y);
    const float* cos = &cos_[positions[i] * half];
    const float* sin = &sin_[positions[i] * half];
    for (int64_t h = 0; h < heads; ++h)
      Rotate(dim_, y + h * dim_, cos, sin, false, y + h * dim_);
  }
}

CpuDecoder::KvHead CpuDecoder::HeadOf(const CpuKv& kv, int64_t layer,
                                      int64_t head) const {
  float* const block =
      kv.data + layer * kv.layer_stride + head * 2 * kv.capacity * dim_;
  return {block + kv.begin * dim_,
          block + kv.capacity * dim_ + kv.begin * kPanel, kv.capacity * kPanel};
}

void CpuDecoder::Store(int64_t tokens, const float* keys, const float* values,
                       int64_t value_stride, int64_t first,
                       const KvHead& kv) const {
  for (int64_t i = 0; i < tokens; ++i) {
    const int64_t j = first + i;
    const float* k = keys + i * kv_width_;
    const float* v = values + i * value_stride;
    float* key = kv.keys + j / kPanel * kPanel * dim_ + j % kPanel;
    for (int64_t d = 0; d < dim_; ++d) key[d * kPanel] = k[d];
    for (int64_t d = 0; d < dim_; d += kPanel)
      std::memcpy(kv.values + d / kPanel * kv.value_stride + j * kPanel, v + d,
                  kPanel * sizeof(float));
  }
}

void CpuDecoder::AttendBlock(int64_t rows, const float* q, int64_t stride,
                             const int32_t* limits, const KvHead& prefix,
                             int64_t shared, const KvHead& own, float* scores,
                             float* out) const {
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim_));
  const int64_t seen = *std::max_element(limits, limits + rows);
  const int64_t padded = PadToPanel(seen);
  const GemmA queries = {q, stride};
  // Both parts of the keys make one row of scores, and one chain of sums over
  // the values: the same bits as if they lay together.
  if (shared > 0)
    Gemm(rows, dim_, shared, queries, {prefix.keys, dim_ * kPanel}, scores,
         padded, false);
  Gemm(rows, dim_, padded - shared, queries, {own.keys, dim_ * kPanel},
       scores + shared, padded, false);
  CausalSoftmax(rows, padded, limits, scale, scores);
  if (shared > 0)
    Gemm(rows, shared, dim_, {scores, padded},
         {prefix.values, prefix.value_stride}, out, stride, false);
  Gemm(rows, seen - shared, dim_, {scores + shared, padded},
       {own.values, own.value_stride}, out, stride, shared > 0);
}

void CpuDecoder::AttendSegment(int64_t layer, const CpuSegment& segment,
                               const CpuKv& kv, int64_t queries,
                               const int32_t* positions, const float* q,
                               float* scores, float* out) const {
  const int64_t group = heads_ / kv_heads_;
  // A block is some tokens of one head, or all heads of the group for a single
  // token.
  const bool one = queries == 1;
  const int64_t longest = PadToPanel(segment.position + segment.num_tokens);
  const auto head = [&](int64_t h) {
    float* const own_scores =
        scores + at::get_thread_num() * kQueryRows * longest;
    const KvHead own = HeadOf(kv, layer, h);
    const KvHead prefix =
        segment.shared > 0 ? HeadOf(segment.prefix, layer, h) : own;
    for (int64_t g = 0; g < (one ? 1 : group); ++g) {
      for (int64_t i = 0; i < queries; i += kQueryRows) {
        const int64_t m = one ? group : std::min(kQueryRows, queries - i);
        int32_t limits[kQueryRows];
        for (int64_t r = 0; r < m; ++r)
          limits[r] = positions[one ? i : i + r] + 1;
        const int64_t offset = i * q_width_ + (h * group + g) * dim_;
        AttendBlock(m, q + offset, one ? dim_ : q_width_, limits, prefix,
                    segment.shared, own, own_scores, out + offset);
      }
    }
  };
  const int64_t work = 2 * group * dim_ * queries * longest;
  at::parallel_for(
      0, kv_heads_,
      std::max<int64_t>(1, kParallelWork / std::max<int64_t>(1, work)),
      [&](int64_t begin, int64_t end) {
        for (int64_t h = begin; h < end; ++h) head(h);
      });
}

void CpuDecoder::Forward(const std::vector<CpuSegment>& segments,
                         FloatBuffer& workspace, CpuTape* tape,
                         float* hidden) const {
  const Rows rows(segments);
  const int64_t n = rows.size(), last = rows.num_outputs();
  const int64_t num_layers = static_cast<int64_t>(layers_.size());
  const float eps = static_cast<float>(config_.rms_norm_eps);
  const int64_t full = Activations::Floats(*this, n, n);

  // Layer l's activations; without a tape all layers share two places (a
  // layer's output is the next one's input).
  const int64_t held = tape != nullptr ? num_layers - 1 : 2;
  const int64_t activations =
      held * full + Activations::Floats(*this, n, last) + last * hidden_;
  const int64_t scratch = n * (2 * hidden_ + q_width_ + kv_width_ + ffn_) +
                          at::get_num_threads() * kQueryRows * rows.longest +
                          KvLayerFloats(rows.scratch_kv);
  Arena space(workspace, scratch + (tape == nullptr ? activations : 0));
  float* saved;
  if (tape != nullptr) {
    if (static_cast<int64_t>(tape->data.size()) < activations)
      tape->data.resize(activations);
    saved = tape->data.data();
  } else {
    saved = space.Take(activations);
  }
  const auto layer_at = [&](int64_t l) {
    const int64_t slot =
        l == num_layers - 1 ? held : (tape != nullptr ? l : l % 2);
    return Activations(*this, n, l == num_layers - 1 ? last : n,
                       Arena(saved + slot * full));
  };
  float* const normed = space.Take(n * hidden_);
  float* const query_normed = space.Take(n * hidden_);
  float* const q_rotated = space.Take(n * q_width_);
  float* const k_rotated = space.Take(n * kv_width_);
  float* const act = space.Take(n * ffn_);
  float* const scores =
      space.Take(at::get_num_threads() * kQueryRows * rows.longest);
  float* const scratch_kv = space.Take(KvLayerFloats(rows.scratch_kv));

  float* x = layer_at(0).x;
  for (size_t s = 0; s < segments.size(); ++s)
    for (int64_t i = 0; i < segments[s].num_tokens; ++i)
      std::memcpy(x + (rows.begin[s] + i) * hidden_,
                  &embed_[segments[s].tokens[i] * hidden_],
                  hidden_ * sizeof(float));

  for (int64_t l = 0; l < num_layers; ++l) {
    const Layer& w = layers_[l];
    const Activations a = layer_at(l);
    const bool is_last = l == num_layers - 1;
    const int64_t queries = is_last ? last : n;
    RmsNorm(n, hidden_, a.x, w.input_norm.data(), eps, normed);
    Linear(n, hidden_, 2 * kv_width_, normed, w.kv, a.kv, false);
    const float* query_in = normed;
    if (is_last) {
      Gather(hidden_, rows.outputs, normed, query_normed);
      Gather(hidden_, rows.outputs, a.x, a.mid);
      query_in = query_normed;
    } else {
      std::memcpy(a.mid, a.x, n * hidden_ * sizeof(float));
    }
    Linear(queries, hidden_, q_width_, query_in, w.q, a.q, false);
    const std::vector<int32_t>& query_positions =
        is_last ? rows.output_positions : rows.positions;
    RotateHeads(n, rows.positions.data(), kv_heads_, w.k_norm, a.kv,
                2 * kv_width_, k_rotated);
    RotateHeads(queries, query_positions.data(), heads_, w.q_norm, a.q,
                q_width_, q_rotated);

    for (size_t s = 0; s < segments.size(); ++s) {
      const CpuSegment& segment = segments[s];
      CpuKv kv = segment.kv;
      if (kv.data == nullptr)
        kv = {scratch_kv, PadToPanel(segment.num_tokens), 0, 0};
      for (int64_t h = 0; h < kv_heads_; ++h)
        Store(segment.num_tokens,
              k_rotated + rows.begin[s] * kv_width_ + h * dim_,
              a.kv + rows.begin[s] * 2 * kv_width_ + kv_width_ + h * dim_,
              2 * kv_width_, segment.position - segment.shared,
              HeadOf(kv, l, h));
      const int64_t begin = is_last ? rows.output_begin[s] : rows.begin[s];
      const int64_t end =
          is_last ? rows.output_begin[s + 1] : rows.begin[s + 1];
      AttendSegment(l, segment, kv, end - begin, &query_positions[begin],
                    q_rotated + begin * q_width_, scores,
                    a.attn + begin * q_width_);
    }
    Linear(queries, q_width_, hidden_, a.attn, w.o, a.mid, true);
    RmsNorm(queries, hidden_, a.mid, w.post_norm.data(), eps, normed);
    Linear(queries, hidden_, 2 * ffn_, normed, w.gate_up, a.gate_up, false);
    SwiGlu(queries, ffn_, a.gate_up, act);
    float* out = is_last
                     ? saved + held * full + Activations::Floats(*this, n, last)
                     : layer_at(l + 1).x;
    std::memcpy(out, a.mid, queries * hidden_ * sizeof(float));
    Linear(queries, ffn_, hidden_, act, w.down, out, true);
    if (is_last) RmsNorm(last, hidden_, out, norm_.data(), eps, hidden);
  }
}

void CpuDecoder::Backward(const std::vector<CpuSegment>& segments,
                          const CpuTape& tape, const float* d_hidden,
                          FloatBuffer& workspace, float* grads) const {
  const Rows rows(segments);
  const int64_t n = rows.size(), last = rows.num_outputs();
  const int64_t num_layers = static_cast<int64_t>(layers_.size());
  const float eps = static_cast<float>(config_.rms_norm_eps);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim_));
  const int64_t full = Activations::Floats(*this, n, n);
  const int64_t longest = rows.longest;
  const int64_t widest = std::max({hidden_, q_width_, ffn_});
  Arena space(workspace, n * (5 * hidden_ + 3 * q_width_ + 3 * kv_width_ +
                              4 * ffn_ + widest) +
                             2 * kQueryRows * longest + 4 * longest * dim_ +
                             2 * kQueryRows * dim_);
  float* const dx = space.Take(n * hidden_);
  float* const d_mid = space.Take(n * hidden_);
  float* const normed = space.Take(n * hidden_);
  float* const query_normed = space.Take(n * hidden_);
  float* const d_normed = space.Take(n * hidden_);
  float* const q_rotated = space.Take(n * q_width_);
  float* const dq = space.Take(n * q_width_);
  float* const d_attn = space.Take(n * q_width_);
  float* const k_rotated = space.Take(n * kv_width_);
  float* const dkv = space.Take(n * 2 * kv_width_);
  float* const act = space.Take(n * ffn_);
  float* const d_act = space.Take(n * ffn_);
  float* const d_gate_up = space.Take(n * 2 * ffn_);
  float* const panels = space.Take(n * widest);
  float* const p = space.Take(kQueryRows * longest);
  float* const dp = space.Take(kQueryRows * longest);
  // The keys and values of one head, as right operands [dim, keys] and
  // [keys, dim].
  float* const k_columns = space.Take(longest * dim_);
  float* const v_columns = space.Take(longest * dim_);
  float* const k_rows = space.Take(longest * dim_);
  float* const block = space.Take(2 * kQueryRows * dim_);

  const float* final_x = tape.data.data() + (num_layers - 1) * full +
                         Activations::Floats(*this, n, last);
  RmsNormBackward(last, hidden_, final_x, norm_.data(), eps, d_hidden, dx,
                  false, grads + d_norm_);

  for (int64_t l = num_layers - 1; l >= 0; --l) {
    const Layer& w = layers_[l];
    const bool is_last = l == num_layers - 1;
    const int64_t queries = is_last ? last : n;
    const std::vector<int32_t>& query_positions =
        is_last ? rows.output_positions : rows.positions;
    const Activations a(*this, n, queries, Arena(tape.data.data() + l * full));
    // MLP.
    SwiGlu(queries, ffn_, a.gate_up, act);
    Linear(queries, hidden_, ffn_, dx, w.down_back, d_act, false);
    WeightGradient(queries, ffn_, hidden_, dx, act, panels, grads + w.d_down);
    SwiGluBackward(queries, ffn_, a.gate_up, d_act, d_gate_up);
    RmsNorm(queries, hidden_, a.mid, w.post_norm.data(), eps, normed);
    WeightGradient(queries, hidden_, 2 * ffn_, d_gate_up, normed, panels,
                   grads + w.d_gate_up);
    Linear(queries, 2 * ffn_, hidden_, d_gate_up, w.gate_up_back, d_normed,
           false);
    std::memcpy(d_mid, dx, queries * hidden_ * sizeof(float));
    RmsNormBackward(queries, hidden_, a.mid, w.post_norm.data(), eps, d_normed,
                    d_mid, true, grads + w.d_post_norm);
    // Attention.
    Linear(queries, hidden_, q_width_, d_mid, w.o_back, d_attn, false);
    WeightGradient(queries, q_width_, hidden_, d_mid, a.attn, panels,
                   grads + w.d_o);
    RotateHeads(n, rows.positions.data(), kv_heads_, w.k_norm, a.kv,
                2 * kv_width_, k_rotated);
    RotateHeads(queries, query_positions.data(), heads_, w.q_norm, a.q,
                q_width_, q_rotated);
    std::fill_n(dkv, n * 2 * kv_width_, 0.0f);
    const int64_t group = heads_ / kv_heads_;
    for (size_t s = 0; s < segments.size(); ++s) {
      const int64_t begin = rows.begin[s];
      const int64_t keys = rows.begin[s + 1] - begin;
      const int64_t q_begin = is_last ? rows.output_begin[s] : begin;
      const int64_t q_end =
          is_last ? rows.output_begin[s + 1] : rows.begin[s + 1];
      for (int64_t h = 0; h < kv_heads_; ++h) {
        const float* k = k_rotated + begin * kv_width_ + h * dim_;
        const float* v = a.kv + (2 * begin + 1) * kv_width_ + h * dim_;
        PackPanels(k, dim_, keys, 1, kv_width_, k_columns);
        PackPanels(v, dim_, keys, 1, 2 * kv_width_, v_columns);
        PackPanels(k, keys, dim_, kv_width_, 1, k_rows);
        float* const dk = dkv + begin * 2 * kv_width_ + h * dim_;
        for (int64_t g = 0; g < group; ++g) {
          for (int64_t i = q_begin; i < q_end; i += kQueryRows) {
            const int64_t m = std::min(kQueryRows, q_end - i);
            int32_t limits[kQueryRows];
            int64_t seen = 0;
            for (int64_t r = 0; r < m; ++r) {
              limits[r] = query_positions[i + r] + 1;
              seen = std::max<int64_t>(seen, limits[r]);
            }
            const int64_t padded = PadToPanel(seen);
            const int64_t offset = i * q_width_ + (h * group + g) * dim_;
            const float* q = q_rotated + offset;
            const float* d_out = d_attn + offset;
            Gemm(m, dim_, padded, {q, q_width_}, {k_columns, dim_ * kPanel}, p,
                 padded, false);
            CausalSoftmax(m, padded, limits, scale, p);
            Gemm(m, dim_, padded, {d_out, q_width_}, {v_columns, dim_ * kPanel},
                 dp, padded, false);
            CausalSoftmaxBackward(m, padded, scale, p, dp);
            Gemm(m, seen, dim_, {dp, padded}, {k_rows, keys * kPanel},
                 dq + offset, q_width_, false);
            PackPanels(q, m, dim_, q_width_, 1, block);
            Gemm(seen, m, dim_, {dp, padded, true}, {block, m * kPanel}, dk,
                 2 * kv_width_, true);
            PackPanels(d_out, m, dim_, q_width_, 1, block);
            Gemm(seen, m, dim_, {p, padded, true}, {block, m * kPanel},
                 dk + kv_width_, 2 * kv_width_, true);
          }
        }
      }
    }
    // Through RoPE and the head norms, in place.
    const auto rotate_back = [&](int64_t count, const int32_t* positions,
                                 int64_t heads, const FloatBuffer& norm,
                                 const float* x, float* d, int64_t stride,
                                 float* d_norm) {
      const int64_t half = dim_ / 2;
      for (int64_t i = 0; i < count; ++i) {
        float* row = d + i * stride;
        for (int64_t h = 0; h < heads; ++h)
          Rotate(dim_, row + h * dim_, &cos_[positions[i] * half],
                 &sin_[positions[i] * half], true, row + h * dim_);
        RmsNormBackward(heads, dim_, x + i * stride, norm.data(), eps, row, row,
                        false, d_norm);
      }
    };
    rotate_back(queries, query_positions.data(), heads_, w.q_norm, a.q, dq,
                q_width_, grads + w.d_q_norm);
    rotate_back(n, rows.positions.data(), kv_heads_, w.k_norm, a.kv, dkv,
                2 * kv_width_, grads + w.d_k_norm);

    RmsNorm(n, hidden_, a.x, w.input_norm.data(), eps, normed);
    WeightGradient(n, hidden_, 2 * kv_width_, dkv, normed, panels,
                   grads + w.d_kv);
    Linear(n, 2 * kv_width_, hidden_, dkv, w.kv_back, d_normed, false);
    if (is_last) {
      Gather(hidden_, rows.outputs, normed, query_normed);
      WeightGradient(queries, hidden_, q_width_, dq, query_normed, panels,
                     grads + w.d_q);
      Linear(queries, q_width_, hidden_, dq, w.q_back, query_normed, false);
      ScatterAdd(hidden_, rows.outputs, query_normed, d_normed);
      std::fill_n(dx, n * hidden_, 0.0f);
      ScatterAdd(hidden_, rows.outputs, d_mid, dx);
    } else {
      WeightGradient(n, hidden_, q_width_, dq, normed, panels, grads + w.d_q);
      Linear(n, q_width_, hidden_, dq, w.q_back, d_normed, true);
      std::memcpy(dx, d_mid, n * hidden_ * sizeof(float));
    }
    RmsNormBackward(n, hidden_, a.x, w.input_norm.data(), eps, d_normed, dx,
                    true, grads + w.d_input_norm);
  }
  for (size_t s = 0; s < segments.size(); ++s)
    for (int64_t i = 0; i < segments[s].num_tokens; ++i)
      AddTo(hidden_, dx + (rows.begin[s] + i) * hidden_,
            grads + d_embed_ + segments[s].tokens[i] * hidden_);
}

void CpuDecoder::Logits(int64_t rows, const float* hidden,
                        float* logits) const {
  Linear(rows, hidden_, config_.vocab_size, hidden, head_, logits, false);
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
