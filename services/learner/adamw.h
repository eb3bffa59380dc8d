#pragma once

#include <cstdint>
#include <vector>

#include "torch/types.h"

namespace atod::learner {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0;  // of matrices; vectors (norms) never decay
};

// AdamW with decoupled weight decay. Moments are float32; parameters of another
// dtype get a float32 master copy, which is what is updated. Contiguous tensors
// on the CPU, and the same bits on every x86-64, under any number of threads.
class AdamW {
 public:
  AdamW(std::vector<torch::Tensor> parameters, const AdamWOptions& options);

  // One update with the parameters' gradients; those without one stay.
  void Step(double lr);

  int64_t updates() const { return updates_; }

  // State for checkpoints, one tensor a parameter in their order; masters are
  // the parameters themselves when these are float32. Restored with copy_ into
  // them, then RestoreUpdates.
  const std::vector<torch::Tensor>& first_moments() const { return first_; }
  const std::vector<torch::Tensor>& second_moments() const { return second_; }
  const std::vector<torch::Tensor>& masters() const { return masters_; }
  // Sets the update count and copies the masters to the parameters.
  void RestoreUpdates(int64_t updates);

 private:
  void CopyMasters();

  std::vector<torch::Tensor> parameters_, masters_, first_, second_;
  AdamWOptions options_;
  int64_t updates_ = 0;
};

// Scales the gradients so that their joint 2-norm is at most `max_norm` (0: no
// limit). Returns the norm before.
double ClipGradNorm(const std::vector<torch::Tensor>& parameters,
                    double max_norm);

}  // namespace atod::learner
