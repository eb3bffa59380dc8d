#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/model_config.h"
#include "common/weights/snapshot.h"

namespace atod::model {

struct InferenceOptions {
  std::string dtype = "float32";
  std::string device = "cpu";  // as torch names it
  int max_slots = 64;
  int64_t max_context = 0;    // tokens of prompt and response; 0: the model's
  bool deterministic = true;  // UseKernels (self_test.h)
};

// New tokens of one slot, behind the `position` tokens that it holds already.
struct SlotTokens {
  int slot = 0;
  absl::Span<const int32_t> tokens;  // at least one
  int64_t position = 0;
};

// A model with a KV cache of numbered slots. Prompts and single decoded tokens
// may be mixed in one call. Not thread-safe.
class InferenceModel {
 public:
  virtual ~InferenceModel() = default;
  virtual const ModelConfig& config() const = 0;
  virtual int64_t max_context() const = 0;
  // Makes room for `tokens` in the slot and forgets what it held.
  virtual absl::Status Reserve(int slot, int64_t tokens) = 0;
  // Runs the new tokens, keeps their keys and values, and writes the float32
  // logits after each input's last token to `logits` [inputs, vocab_size].
  virtual absl::Status Extend(const std::vector<SlotTokens>& inputs,
                              float* logits) = 0;
  // Other weights of the same shapes. What the slots held is worthless then.
  virtual absl::Status Install(const weights::WeightSnapshot& snapshot) = 0;
};

// The model of a Hugging Face folder. float32 on the CPU, unless
// `deterministic` is off, runs on own kernels, whose results do not depend on
// batching and equal those of ScoreSpans to the bit; everything else on torch's
// operations.
absl::StatusOr<std::unique_ptr<InferenceModel>> OpenInference(
    const std::string& dir, const InferenceOptions& options);

}  // namespace atod::model
