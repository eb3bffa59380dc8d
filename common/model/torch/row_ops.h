#pragma once

#include <cstdint>

#include "torch/types.h"

namespace atod::model {

// Operations of a block that are many passes over memory in torch and one here:
// without gradients, on a CPU with AVX-512, in float32 or bfloat16. Results are
// torch's up to rounding.

// Whether they can be had for tensors like `x` whose rows, or heads, are
// `width` long.
bool HasRowOps(const torch::Tensor& x, int64_t width);

// x [rows, width] -> the same shape.
torch::Tensor RowNorm(const torch::Tensor& x, const torch::Tensor& weight,
                      double eps);

// Heads of qkv [rows, heads, dim], contiguous, in place: the first `queries`
// are normed by q_weight, the next `keys` by k_weight, and both rotated by cos
// and sin [rows, 1, dim].
void NormRotate(const torch::Tensor& qkv, int64_t queries, int64_t keys,
                const torch::Tensor& q_weight, const torch::Tensor& k_weight,
                double eps, const torch::Tensor& cos, const torch::Tensor& sin);

// [rows, 2 width] (gate, up) -> silu(gate) * up [rows, width].
torch::Tensor RowSwiGlu(const torch::Tensor& gate_up);

}  // namespace atod::model
