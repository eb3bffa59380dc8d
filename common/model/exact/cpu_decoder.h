#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/model/exact/float_buffer.h"
#include "common/model/model_config.h"

namespace atod::model {

// Keys and values of one sequence: rows from `begin` on of a pool in the panel
// layout of cpu_kernels.h. For layer l and kv head h the block at data +
// l * layer_stride + h * 2 * capacity * head_dim holds the pool's keys
// [capacity / 16][head_dim][16] (key j is column j), then its values
// [head_dim / 16][capacity][16].
struct CpuKv {
  float* data = nullptr;
  int64_t capacity = 0;  // rows of the pool, a multiple of 16
  int64_t layer_stride = 0;
  int64_t begin = 0;  // a multiple of 16
};

// Tokens of one sequence to run: those from `position` on. The first `shared`
// tokens before them have their keys in `prefix`, those behind in `kv`, where
// the new ones are added (at row position - shared).
struct CpuSegment {
  const int32_t* tokens = nullptr;
  int64_t num_tokens = 0;
  int64_t position = 0;
  // Tokens whose hidden state is wanted: indices into `tokens`. The last layer
  // runs for these only.
  std::vector<int32_t> outputs;
  CpuKv kv;            // without data: scratch memory for one pass
  CpuKv prefix;        // read only
  int64_t shared = 0;  // a multiple of 16, at most `position`
};

// What the backward pass of one Forward needs; reused between calls so that
// memory is not given back and forth.
struct CpuTape;
struct RowSet;  // cpu_pass.h

// Float32 Qwen3 on the CPU with its own kernels: the matrices are copied into
// panels once. Const functions may run in several threads, each with its own
// segments, tape and workspace.
class CpuDecoder {
 public:
  // Whether kernels for this shape and machine exist.
  static bool Supports(const ModelConfig& config);

  // `parameters` in the order of ParameterSpecs, contiguous; they stay where
  // they are, unchanged. `backward` also lays out what Backward needs.
  CpuDecoder(const ModelConfig& config,
             const std::vector<const float*>& parameters, int64_t max_positions,
             bool backward);

  const ModelConfig& config() const { return config_; }
  int64_t max_positions() const { return max_positions_; }
  bool has_backward() const { return !head_back_.empty(); }
  // Floats of one layer in a CpuKv of `capacity`.
  int64_t KvLayerFloats(int64_t capacity) const {
    return 2 * capacity * kv_width_;
  }

  // Runs the segments (their order changes no result) and writes the final
  // normed hidden states of all their outputs to `hidden` [num_outputs,
  // hidden_size]. Without `tape`, activations live in `workspace`.
  void Forward(const std::vector<CpuSegment>& segments, FloatBuffer& workspace,
               CpuTape* tape, float* hidden) const;

  // Adds the gradients of all parameters to `grads`, one flat buffer in the
  // order of ParameterSpecs, given d_hidden of the Forward that filled `tape`.
  void Backward(const std::vector<CpuSegment>& segments, const CpuTape& tape,
                const float* d_hidden, FloatBuffer& workspace,
                float* grads) const;

  // logits [rows, vocab_size] of hidden [rows, hidden_size].
  void Logits(int64_t rows, const float* hidden, float* logits) const;
  // d_hidden (set) and the head's gradient (added) from d_logits.
  void LogitsBackward(int64_t rows, const float* hidden, const float* d_logits,
                      float* d_hidden, FloatBuffer& workspace,
                      float* grads) const;

  int64_t num_parameters() const { return num_parameters_; }
  // So many that a gradient buffer a thread costs much, and that products are
  // worth all threads.
  bool is_large() const { return num_parameters_ > 16'000'000; }

 private:
  void MakeRopeTables();

  struct Layer {
    FloatBuffer input_norm, q_norm, k_norm, post_norm;
    // Panels of the transposed weights (forward) and of the weights
    // (backward). kv is k_proj over v_proj, gate_up likewise.
    FloatBuffer q, kv, o, gate_up, down;
    FloatBuffer q_back, kv_back, o_back, gate_up_back, down_back;
    // Offsets in the flat gradient buffer.
    int64_t d_input_norm, d_q, d_kv, d_q_norm, d_k_norm, d_o, d_post_norm,
        d_gate_up, d_down;
  };
  // Of one pass: cpu_pass.h, cpu_decoder.cc, cpu_backward.cc.
  struct Rows;
  struct Activations;
  struct Stack;
  struct ForwardSpace;
  struct BackwardSpace;

  // Where the keys and values of a layer and head begin.
  struct KvHead {
    float* keys;
    float* values;
    int64_t value_stride;  // floats between panels of values
  };
  KvHead HeadOf(const CpuKv& kv, int64_t layer, int64_t head) const;
  // Adds the rotated keys and the values of one head to `kv` from row `first`.
  void Store(int64_t tokens, const float* keys, const float* values,
             int64_t value_stride, int64_t first, const KvHead& kv) const;
  // One block of at most kQueryRows queries of one kv head: out = attention.
  // limits[r] keys are seen by row r; `shared` of them lie in `prefix`.
  void AttendBlock(int64_t rows, const float* q, int64_t stride,
                   const int32_t* limits, const KvHead& prefix, int64_t shared,
                   const KvHead& own, float* scores, float* out) const;
  // All queries of a segment in one layer: q and out [queries, q_width].
  void AttendSegment(int64_t layer, const CpuSegment& segment, const CpuKv& kv,
                     int64_t queries, const int32_t* positions, const float* q,
                     float* scores, float* out) const;

  // The forward pass of one layer: queries, keys and values; attention; the
  // rest, up to the residual stream `out` [queries, hidden].
  void Embed(const std::vector<CpuSegment>& segments, float* x) const;
  void Project(const Layer& w, const Rows& rows, bool last_layer,
               const Activations& a, const ForwardSpace& space) const;
  void Attend(int64_t layer, const std::vector<CpuSegment>& segments,
              const Rows& rows, const Activations& a,
              const ForwardSpace& space) const;
  void FeedForward(const Layer& w, int64_t queries, const Activations& a,
                   const ForwardSpace& space, float* out) const;

  // The way back, from s.dx to s.dx of the layer below: each is named for what
  // it undoes.
  void FeedForwardBackward(const Layer& w, int64_t queries,
                           const Activations& a, const BackwardSpace& s,
                           float* grads) const;
  void AttentionBackward(const Layer& w, const Rows& rows, bool last_layer,
                         const Activations& a, const BackwardSpace& s,
                         float* grads) const;
  void AttendBackward(const RowSet& all, const RowSet& queries,
                      const Activations& a, const BackwardSpace& s) const;
  // At most kQueryRows queries of one head, which lie at `offset` of q_rotated.
  void AttendBlockBackward(int64_t rows, const int32_t* positions, int64_t keys,
                           int64_t offset, float* dk,
                           const BackwardSpace& s) const;
  void RotateBack(const RowSet& rows, int64_t heads, const FloatBuffer& norm,
                  const float* x, float* d, int64_t stride,
                  float* d_norm) const;
  void ProjectBackward(const Layer& w, const Rows& rows, bool last_layer,
                       const Activations& a, const BackwardSpace& s,
                       float* grads) const;

  void RotateHeads(int64_t row_count, const int32_t* positions, int64_t heads,
                   const FloatBuffer& norm, const float* x, int64_t x_stride,
                   float* y) const;

  ModelConfig config_;
  int64_t hidden_, ffn_, heads_, kv_heads_, dim_, q_width_, kv_width_;
  float eps_;
  int64_t max_positions_;
  int64_t num_parameters_ = 0;
  const float* embed_ = nullptr;  // not owned
  FloatBuffer norm_, head_, head_back_;
  int64_t d_embed_ = 0, d_norm_ = 0, d_head_ = 0;
  FloatBuffer cos_, sin_;  // [max_positions, head_dim / 2]
  std::vector<Layer> layers_;
};

struct CpuTape {
  FloatBuffer data;
};

}  // namespace atod::model
