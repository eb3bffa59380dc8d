#pragma once

#include <cstdint>
#include <string>

#include "atod/v1/config.pb.h"
#include "common/model/model_config.h"

namespace atod::cli {

// Bytes that one process of a role needs for its model, each on a device of
// its own. An estimate from the shapes: allocators, libraries and
// fragmentation come on top. docs/operations.md has the formulas.
struct LearnerMemory {
  uint64_t parameters = 0;   // compute dtype
  uint64_t gradients = 0;    // compute dtype
  uint64_t optimizer = 0;    // two float32 moments; float32 masters beside bf16
  uint64_t activations = 0;  // of one micro-batch, kept for the backward pass
  uint64_t head = 0;         // float32 logits of one block of rows
  uint64_t total() const {
    return parameters + gradients + optimizer + activations + head;
  }
};
struct InferenceMemory {
  uint64_t parameters = 0;
  uint64_t cache_or_work = 0;  // rollout: keys and values; teacher: one forward
  uint64_t incoming = 0;       // rollout: a version that is being received
  uint64_t total() const { return parameters + cache_or_work + incoming; }
};

// `dtype` as in model.dtype.
LearnerMemory LearnerBytes(const model::ModelConfig& model,
                           const std::string& dtype,
                           uint32_t micro_batch_tokens);
InferenceMemory RolloutBytes(const model::ModelConfig& model,
                             const std::string& dtype, uint32_t slots,
                             uint32_t max_context);
InferenceMemory TeacherBytes(const model::ModelConfig& model,
                             const std::string& dtype, int64_t forward_tokens);

// What a run will do, from the configuration and the config.json of its models:
// episodes, updates and tokens of a step, evaluations, memory a process. A
// model whose config.json cannot be read is said so in its line.
std::string Plan(const v1::RunConfig& config);

}  // namespace atod::cli
