#pragma once

#include <cstdint>

#include "common/model/arena.h"
#include "torch/types.h"

namespace atod::learner {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0;  // of matrices; vectors (norms) never decay
};

// AdamW with decoupled weight decay on the flat float32 buffers of an arena:
// masters, gradients and two moments. On the CPU the same bits on every x86-64,
// under any number of threads; elsewhere torch's fused operation.
class AdamW {
 public:
  // The arena has gradients and outlives this.
  AdamW(model::ParameterArena* arena, const AdamWOptions& options);

  // One update of the masters with the gradients. The caller then tells the
  // model (LanguageModel::ParametersChanged).
  void Step(double lr);

  int64_t updates() const { return updates_; }
  void set_updates(int64_t updates) { updates_ = updates; }

  // State for checkpoints beside the masters, flat like these.
  torch::Tensor& first_moments() { return first_; }
  torch::Tensor& second_moments() { return second_; }

 private:
  model::ParameterArena* const arena_;
  torch::Tensor first_, second_;
  AdamWOptions options_;
  int64_t updates_ = 0;
};

// Scales the gradients so that their joint 2-norm is at most `max_norm` (0: no
// limit). Returns the norm before.
double ClipGradNorm(model::ParameterArena& arena, double max_norm);

}  // namespace atod::learner
