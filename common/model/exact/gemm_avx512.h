#pragma once

#include <cstdint>

#include "common/model/exact/cpu_kernels.h"

namespace atod::model {

// Gemm on 16 lanes and in blocks that fit the caches. Every output is the same
// chain of fused multiply-adds over k as in Gemm, so the bits are equal.
// Whether this machine can run it: Avx512Supported.
void GemmAvx512(int64_t m, int64_t k, int64_t n, GemmA a, GemmB b, float* c,
                int64_t c_stride, bool accumulate);

// C = A [m, k] B [k, n] with B in bfloat16: panels [ceil(n / 16)][k][16].
void GemmBf16Avx512(int64_t m, int64_t k, int64_t n, const float* a,
                    const uint16_t* panels, float* c, int64_t c_stride);

// One panel of `columns` rows of W [out, k] (their transpose), zero-padded.
void PackBf16Panel(int64_t k, int64_t columns, const uint16_t* rows,
                   uint16_t* panel);

bool Avx512Supported();

}  // namespace atod::model
