#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace atod::model {

// The keys of a Hugging Face config.json (model_type qwen3 or qwen3_moe) that
// shape the computation.
struct ModelConfig {
  int64_t vocab_size = 0;    // rows of embedding and head
  int64_t padding_rows = 0;  // further rows, of no token; see LoadModel
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 1e6;  // or rope_parameters.rope_theta
  bool tie_word_embeddings = false;
  // A mixture of experts has these in every layer, in place of a feed-forward
  // of intermediate_size.
  int64_t num_experts = 0;  // 0: a dense model
  int64_t num_experts_per_tok = 0;
  int64_t moe_intermediate_size = 0;  // of one expert
  bool norm_topk_prob = false;        // a token's gates are made to sum to 1
  std::string source{};  // the text that it was read from; empty: none
};

// Reads DIR/config.json. Unsupported architectures and features (layers without
// experts among layers with them, rope scaling in any spelling, sliding
// windows, attention bias) are refused by name.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& dir);

// The same from a text; `file` only names it in errors.
absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& text,
                                             const std::string& file);

// The text of a config.json that transformers reads back: `source` with every
// key as it came, but for the dtype. `dtype` is "float32" or "bfloat16".
std::string ModelConfigJson(const ModelConfig& config,
                            const std::string& dtype);

// XXH3-128 of the shape-defining keys (ModelInfo.arch_hash).
std::string ArchHash(const ModelConfig& config);

// One parameter by its Hugging Face name.
struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;
};

// All parameters in the order in which they lie in memory. A tied head has no
// entry of its own. One behind the other, a layer's experts are two tensors:
// [num_experts, 2 moe_intermediate_size, hidden_size] of gate over up, then
// [num_experts, hidden_size, moe_intermediate_size] of down.
std::vector<ParameterSpec> ParameterSpecs(const ModelConfig& config);

}  // namespace atod::model
