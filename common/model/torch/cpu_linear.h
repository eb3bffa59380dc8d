#pragma once

#include <cstdint>
#include <memory>

#include "torch/types.h"

namespace atod::model {

// A frozen bfloat16 matrix on the CPU. In panels of 16 columns (cpu_kernels.h),
// multiplied in float32: few rows read it at the speed of memory, many run at
// that of float32. As it is stored, where the processor has tiles for bfloat16:
// few rows read it at the speed of memory, many are torch's, which uses them.
// Immutable, thread-safe.
class CpuLinear {
 public:
  static std::shared_ptr<const CpuLinear> AsStored(const torch::Tensor& weight);
  // `weight` [out, in]. Null where it is of another dtype or device, or the
  // machine has no AVX-512: torch's own product is taken then. `in_place` lays
  // out the weight's own memory, which is of no other use until Restore; other
  // weights, and those whose rows do not fill panels, are copied.
  static std::shared_ptr<const CpuLinear> Make(const torch::Tensor& weight,
                                               bool in_place);
  // Puts the memory of `weight` back, if it was laid out in place.
  void Restore(const torch::Tensor& weight) const;

  // x bfloat16 [rows, in] -> x W^T [rows, out] in bfloat16, or, of panels, as
  // summed.
  torch::Tensor Apply(const torch::Tensor& x) const;
  torch::Tensor ApplyFloat(const torch::Tensor& x) const;

 private:
  CpuLinear() = default;
  CpuLinear(const torch::Tensor& weight, bool in_place);
  // x W^T to what is not null.
  void Run(const torch::Tensor& x, uint16_t* out, float* out_float) const;

  torch::Tensor ApplyStored(const torch::Tensor& x) const;

  int64_t out_ = 0, in_ = 0;
  torch::Tensor panels_;  // bfloat16 [ceil(out / 16), in, 16]
  torch::Tensor stored_;  // or, as it is stored, [out, in]
};

}  // namespace atod::model
