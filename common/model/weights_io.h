#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/arena.h"
#include "common/model/model_config.h"
#include "common/weights/snapshot.h"

namespace atod::model {

// A model's weights, and the rows of embedding and head behind those of the
// tokenizer's ids (config.padding_rows), in the file's dtype on the CPU;
// undefined when there are none, or for a tied head.
struct ModelWeights {
  ModelConfig config;
  std::unique_ptr<ParameterArena> arena;
  torch::Tensor embedding_padding, head_padding;
};

struct LoadOptions {
  std::string dtype;  // "float32", "bfloat16"; empty: the file's
  torch::Device device = torch::kCPU;
  bool gradients = false;
};

// Hugging Face folder: config.json + model.safetensors (or a sharded index),
// mapped and copied tensor by tensor. INVALID_ARGUMENT names every tensor that
// does not fit, or one with values that are not finite, also once they are
// converted.
//
// Rows for which the tokenizer beside has no id (padding to a round number) are
// no part of the model: they are never sampled, and log-probs of student and
// teacher are over the ids that have a token. They are kept and written back.
absl::StatusOr<ModelWeights> LoadWeights(const std::string& dir,
                                         const LoadOptions& options);

// Fresh weights, float32 on the CPU. "unit": embedding std 1/sqrt(hidden),
// linear std 1/sqrt(fan_in), o_proj and down_proj scaled by 0.2, norms 1 (tiny
// models learn three times as fast); "hf": normal 0.02, norms 1.
absl::StatusOr<ModelWeights> InitWeights(const ModelConfig& config,
                                         const std::string& init,
                                         uint64_t seed);

// LanguageModel::Save; the masters are written where there are some.
absl::Status SaveWeights(const ModelWeights& weights, const std::string& dir,
                         const std::string& dtype);

// A copy of all parameters, converted to `dtype` ("float32", "bfloat16"), in
// the order of ParameterSpecs.
absl::StatusOr<weights::WeightSnapshot> ExportWeights(
    const ParameterArena& arena, const std::string& dtype);

// The root hash that ExportWeights would give for the arena's own dtype,
// without a copy of the whole.
absl::StatusOr<std::string> HashWeights(const ParameterArena& arena);

// Overwrites the values (and masters), converting to the arena's dtype. Names,
// shapes and checksums are verified first: on an error nothing has changed.
absl::Status ImportWeights(ParameterArena& arena,
                           const weights::WeightSnapshot& snapshot);

}  // namespace atod::model
