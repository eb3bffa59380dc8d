#include "common/model/exact/cpu_decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/model/exact/cpu_pass.h"

namespace atod::model {
namespace {

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

}  // namespace

// What a layer of the forward pass needs beside its activations.
struct CpuDecoder::ForwardSpace {
  float *normed, *query_normed, *q_rotated, *k_rotated, *act, *scores, *kv;

  static int64_t Floats(const CpuDecoder& d, const Rows& rows) {
    return rows.all.size() *
               (2 * d.hidden_ + d.q_width_ + d.kv_width_ + d.ffn_) +
           at::get_num_threads() * kQueryRows * rows.longest +
           d.KvLayerFloats(rows.scratch_kv);
  }
  ForwardSpace(const CpuDecoder& d, const Rows& rows, Arena& space)
      : normed(space.Take(rows.all.size() * d.hidden_)),
        query_normed(space.Take(rows.all.size() * d.hidden_)),
        q_rotated(space.Take(rows.all.size() * d.q_width_)),
        k_rotated(space.Take(rows.all.size() * d.kv_width_)),
        act(space.Take(rows.all.size() * d.ffn_)),
        scores(space.Take(at::get_num_threads() * kQueryRows * rows.longest)),
        kv(space.Take(d.KvLayerFloats(rows.scratch_kv))) {}
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
      eps_(static_cast<float>(config.rms_norm_eps)),
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
  embed_ = take(vocab * hidden_, d_embed_);
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
  const float* head = embed_;
  d_head_ = d_embed_;
  if (!config.tie_word_embeddings) head = take(vocab * hidden_, d_head_);
  head_ = PackForward(head, vocab, hidden_);
  if (backward) head_back_ = PackBackward(head, vocab, hidden_);
  MakeRopeTables();
}

void CpuDecoder::MakeRopeTables() {
  const int64_t half = dim_ / 2;
  FloatBuffer frequency(half);
  for (int64_t j = 0; j < half; ++j)
    frequency[j] =
        1.0f / std::pow(static_cast<float>(config_.rope_theta),
                        static_cast<float>(2 * j) / static_cast<float>(dim_));
  cos_.resize(max_positions_ * half);
  sin_.resize(max_positions_ * half);
  for (int64_t p = 0; p < max_positions_; ++p) {
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
  for (int64_t i = 0; i < row_count; ++i, y += heads * dim_) {
    RmsNorm(heads, dim_, x + i * x_stride, norm.data(), eps_, y);
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
  // A block is some tokens of one head, or some heads of the group for a single
  // token.
  const bool one = queries == 1;
  const int64_t rows = one ? group : queries;
  const int64_t longest = PadToPanel(segment.position + segment.num_tokens);
  const auto head = [&](int64_t h) {
    float* const own_scores =
        scores + at::get_thread_num() * kQueryRows * longest;
    const KvHead own = HeadOf(kv, layer, h);
    const KvHead prefix =
        segment.shared > 0 ? HeadOf(segment.prefix, layer, h) : own;
    for (int64_t g = 0; g < (one ? 1 : group); ++g) {
      for (int64_t i = 0; i < rows; i += kQueryRows) {
        const int64_t m = std::min(kQueryRows, rows - i);
        int32_t limits[kQueryRows];
        for (int64_t r = 0; r < m; ++r)
          limits[r] = positions[one ? 0 : i + r] + 1;
        const int64_t offset =
            (h * group + g) * dim_ + i * (one ? dim_ : q_width_);
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

void CpuDecoder::Embed(const std::vector<CpuSegment>& segments,
                       float* x) const {
  for (const CpuSegment& segment : segments)
    for (int64_t i = 0; i < segment.num_tokens; ++i, x += hidden_)
      std::memcpy(x, embed_ + segment.tokens[i] * hidden_,
                  hidden_ * sizeof(float));
}

void CpuDecoder::Project(const Layer& w, const Rows& rows, bool last_layer,
                         const Activations& a,
                         const ForwardSpace& space) const {
  const int64_t n = rows.all.size();
  const RowSet& queries = rows.Queries(last_layer);
  RmsNorm(n, hidden_, a.x, w.input_norm.data(), eps_, space.normed);
  Linear(n, hidden_, 2 * kv_width_, space.normed, w.kv, a.kv, false);
  const float* query_in = space.normed;
  if (last_layer) {
    Gather(hidden_, rows.output_rows, space.normed, space.query_normed);
    Gather(hidden_, rows.output_rows, a.x, a.mid);
    query_in = space.query_normed;
  } else {
    std::memcpy(a.mid, a.x, n * hidden_ * sizeof(float));
  }
  Linear(queries.size(), hidden_, q_width_, query_in, w.q, a.q, false);
  RotateHeads(n, rows.all.positions.data(), kv_heads_, w.k_norm, a.kv,
              2 * kv_width_, space.k_rotated);
  RotateHeads(queries.size(), queries.positions.data(), heads_, w.q_norm, a.q,
              q_width_, space.q_rotated);
}

void CpuDecoder::Attend(int64_t layer, const std::vector<CpuSegment>& segments,
                        const Rows& rows, const Activations& a,
                        const ForwardSpace& space) const {
  const RowSet& queries =
      rows.Queries(layer + 1 == static_cast<int64_t>(layers_.size()));
  for (size_t s = 0; s < segments.size(); ++s) {
    const CpuSegment& segment = segments[s];
    CpuKv kv = segment.kv;
    if (kv.data == nullptr)
      kv = {space.kv, PadToPanel(segment.num_tokens), 0, 0};
    const float* keys = space.k_rotated + rows.all.begin[s] * kv_width_;
    const float* values = a.kv + (2 * rows.all.begin[s] + 1) * kv_width_;
    for (int64_t h = 0; h < kv_heads_; ++h)
      Store(segment.num_tokens, keys + h * dim_, values + h * dim_,
            2 * kv_width_, segment.position - segment.shared,
            HeadOf(kv, layer, h));
    const int64_t begin = queries.begin[s];
    AttendSegment(layer, segment, kv, queries.begin[s + 1] - begin,
                  queries.positions.data() + begin,
                  space.q_rotated + begin * q_width_, space.scores,
                  a.attn + begin * q_width_);
  }
  Linear(queries.size(), q_width_, hidden_, a.attn, layers_[layer].o, a.mid,
         true);
}

void CpuDecoder::FeedForward(const Layer& w, int64_t queries,
                             const Activations& a, const ForwardSpace& space,
                             float* out) const {
  RmsNorm(queries, hidden_, a.mid, w.post_norm.data(), eps_, space.normed);
  Linear(queries, hidden_, 2 * ffn_, space.normed, w.gate_up, a.gate_up, false);
  SwiGlu(queries, ffn_, a.gate_up, space.act);
  std::memcpy(out, a.mid, queries * hidden_ * sizeof(float));
  Linear(queries, ffn_, hidden_, space.act, w.down, out, true);
}

void CpuDecoder::Forward(const std::vector<CpuSegment>& segments,
                         FloatBuffer& workspace, CpuTape* tape,
                         float* hidden) const {
  const Rows rows(segments);
  const int64_t last = static_cast<int64_t>(layers_.size()) - 1;
  Stack stack{*this, rows.all.size(), rows.outputs.size(), tape != nullptr};
  Arena arena(workspace, ForwardSpace::Floats(*this, rows) +
                             (tape == nullptr ? stack.Floats() : 0));
  stack.data = tape != nullptr ? Arena(tape->data, stack.Floats()).Take(0)
                               : arena.Take(stack.Floats());
  const ForwardSpace space(*this, rows, arena);
  Embed(segments, stack.At(0).x);
  for (int64_t l = 0; l <= last; ++l) {
    const Activations a = stack.At(l);
    Project(layers_[l], rows, l == last, a, space);
    Attend(l, segments, rows, a, space);
    FeedForward(layers_[l], rows.Queries(l == last).size(), a, space,
                l == last ? stack.Final() : stack.At(l + 1).x);
  }
  RmsNorm(rows.outputs.size(), hidden_, stack.Final(), norm_.data(), eps_,
          hidden);
}

void CpuDecoder::Logits(int64_t rows, const float* hidden,
                        float* logits) const {
  Linear(rows, hidden_, config_.vocab_size, hidden, head_, logits, false);
}

}  // namespace atod::model
