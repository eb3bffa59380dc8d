#pragma once

#include <cstdint>

#include "common/model/cpu_kernels.h"

namespace atod::model {

// Gemm on 16 lanes and in blocks that fit the caches. Every output is the same
// chain of fused multiply-adds over k as in Gemm, so the bits are equal.
// Whether this machine can run it: Avx512Supported.
void GemmAvx512(int64_t m, int64_t k, int64_t n, GemmA a, GemmB b, float* c,
                int64_t c_stride, bool accumulate);

bool Avx512Supported();

}  // namespace atod::model
