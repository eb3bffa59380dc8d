#pragma once

#include <cstdint>
#include <vector>

#include "common/model/model_config.h"
#include "torch/types.h"

namespace atod::model {

// All parameters of a model in one buffer, in the order of ParameterSpecs and
// without gaps: q|k|v, gate|up and the experts of a layer are adjacent, so that
// fused matrices, shards, the weight stream and checkpoints are views of it.
// The end is padded with zeros to a multiple of kPadding elements, so that it
// can be cut into equal shards.
class ParameterArena {
 public:
  static constexpr int64_t kPadding = 128;

  // Zeros. `gradients` also makes masters and gradients.
  ParameterArena(const ModelConfig& config, torch::Dtype dtype,
                 torch::Device device, bool gradients);

  const std::vector<ParameterSpec>& specs() const { return specs_; }
  // First element of parameter i; one more entry than parameters.
  const std::vector<int64_t>& offsets() const { return offsets_; }
  int64_t num_parameters() const { return offsets_.back(); }
  // Index of the parameter of this name; it must exist.
  size_t Find(const std::string& name) const;

  // [padded size] each.
  torch::Tensor values;     // compute dtype
  torch::Tensor masters;    // float32, what the optimiser updates; the same
                            // memory as `values` when these are float32
  torch::Tensor gradients;  // float32; undefined without gradients

  // Parameter i as a view of one of the three, in its shape.
  torch::Tensor View(const torch::Tensor& flat, size_t i) const;
  // `count` neighbours from i on, with equal columns, as one matrix.
  torch::Tensor Fused(const torch::Tensor& flat, size_t i, size_t count) const;

 private:
  std::vector<ParameterSpec> specs_;
  std::vector<int64_t> offsets_;
};

}  // namespace atod::model
