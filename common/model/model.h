#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/model_config.h"
#include "torch/nn/module.h"
#include "torch/nn/pimpl.h"

namespace atod::model {

// Qwen3 dense decoder: per-head q/k RMSNorm, grouped-query attention, RoPE,
// SwiGLU, tied or untied embeddings. Parameter names are Hugging Face's
// ("model.layers.0.self_attn.q_proj.weight"). Not thread-safe.
class Qwen3Impl : public torch::nn::Module {
 public:
  explicit Qwen3Impl(const ModelConfig& config);

  // Packed training and scoring forward. Sequences lie back to back without
  // padding; attention is causal inside each.
  //   tokens      int64 [num_tokens]
  //   cu_seqlens  offsets of the sequences, first 0, last num_tokens
  // Returns the final normed hidden states [num_tokens, hidden_size].
  torch::Tensor Forward(const torch::Tensor& tokens,
                        const std::vector<int64_t>& cu_seqlens);

  // q [num_tokens, heads, head_dim], k and v [num_tokens, kv heads, head_dim]
  // of a layer -> attention output [num_tokens, heads * head_dim].
  using Attention = std::function<torch::Tensor(
      int64_t layer, const torch::Tensor& q, const torch::Tensor& k,
      const torch::Tensor& v)>;

  // The body with attention left to the caller; `positions` one a token.
  torch::Tensor Run(const torch::Tensor& tokens,
                    const std::vector<int64_t>& positions,
                    const Attention& attention);

  // Head on chosen rows only: [num_rows, hidden_size] -> float32 logits
  // [num_rows, vocab_size].
  torch::Tensor Logits(const torch::Tensor& hidden);

  // [vocab_size, hidden_size]: lm_head, or the embedding when tied.
  const torch::Tensor& head() const { return head_; }

  const ModelConfig& config() const { return config_; }

  // Whether float32 on the CPU may run on own kernels, whose results do not
  // depend on batching (CanScoreOnCpu); otherwise torch's operations.
  bool own_kernels() const { return own_kernels_; }
  void set_own_kernels(bool own) { own_kernels_ = own; }

  // Rows of embedding and head behind those of the tokenizer's ids, in the
  // file's dtype; undefined when there are none, or for a tied head.
  struct Padding {
    torch::Tensor embedding, head;
  };
  const Padding& padding() const { return padding_; }
  void set_padding(Padding padding) { padding_ = std::move(padding); }

  // The parameters in the order of ParameterSpecs.
  std::vector<torch::Tensor> OrderedParameters() const;

 private:
  struct Layer {
    torch::Tensor input_norm, q_proj, k_proj, v_proj, q_norm, k_norm, o_proj,
        post_norm, gate_proj, up_proj, down_proj;
  };

  torch::Tensor Norm(const torch::Tensor& x, const torch::Tensor& weight);

  ModelConfig config_;
  bool own_kernels_ = true;
  torch::Tensor embed_, norm_, head_;  // head_ is embed_ when tied
  Padding padding_;
  std::vector<Layer> layers_;
};
TORCH_MODULE(Qwen3);

struct TokenSpan {
  uint32_t begin = 0;   // first scored token, at least 1
  uint32_t length = 0;  // at least 1
};

// One sequence and the tokens in it that have a log-prob.
struct ScoredSequence {
  std::vector<int32_t> tokens;
  std::vector<TokenSpan> spans;
};

struct SpanLogProbs {
  // Spans of all sequences concatenated in order, [num_scored] float32:
  // log-softmax(logits / temperature) of each token given all before it.
  // Differentiable in the parameters unless grad mode is off.
  torch::Tensor logprobs;
  // Entropy in nats of the same distributions, [num_scored], differentiable
  // too; undefined unless asked for.
  torch::Tensor entropy;
};

// One packed forward over all sequences; the head runs on scored positions
// only. The one place where temperature is applied, for student and teacher
// alike.
SpanLogProbs ScoreSpans(Qwen3& model, const std::vector<ScoredSequence>& batch,
                        float temperature, bool want_entropy);

// The same by torch's own operations: any device and dtype. ScoreSpans takes
// it where the CPU kernels do not apply, tests and benchmarks compare them.
SpanLogProbs TorchScoreSpans(Qwen3& model,
                             const std::vector<ScoredSequence>& batch,
                             float temperature, bool want_entropy);

// Hugging Face folder: config.json + model.safetensors (or a sharded index).
// INVALID_ARGUMENT names the file and the tensor that does not fit or has
// values that are not finite, also once they are converted.
// `dtype` is "float32" or "bfloat16", or empty for the file's own.
//
// Rows for which the tokenizer beside has no id (padding to a round number) are
// no part of the model: they are never sampled, and log-probs of student and
// teacher are over the ids that have a token. They are kept (Padding,
// config().padding_rows) and written back by SaveModel.
absl::StatusOr<Qwen3> LoadModel(const std::string& dir,
                                const std::string& dtype);

// Writes config.json (every key as it was read, but for the dtype) and
// model.safetensors, and removes weights of other names that lay there. Other
// files of the folder (the tokenizer) are copied by the caller
// (CopyTokenizerFiles). Values that are not finite are not written:
// INVALID_ARGUMENT names the tensor.
absl::Status SaveModel(Qwen3& model, const std::string& dir,
                       const std::string& dtype);

// Fresh weights. "unit": embedding std 1/sqrt(hidden), linear std
// 1/sqrt(fan_in), o_proj and down_proj scaled by 0.2, norms 1 (tiny models
// learn three times as fast); "hf": normal 0.02, norms 1.
absl::StatusOr<Qwen3> InitModel(const ModelConfig& config,
                                const std::string& init, uint64_t seed);

}  // namespace atod::model
