#pragma once

#include <cstdint>

#include "common/model/exact/cpu_kernels.h"

namespace atod::model {

// Gemm on 16 lanes and in blocks that fit the caches. Every output is the same
// chain of fused multiply-adds over k as in Gemm, so the bits are equal.
// Whether this machine can run it: Avx512Supported.
void GemmAvx512(int64_t m, int64_t k, int64_t n, GemmA a, GemmB b, float* c,
                int64_t c_stride, bool accumulate);

// C = X W^T in float32 sums for at most Bf16BlockRows(k) rows of X, bfloat16
// [m, k] without gaps, and n columns of W, bfloat16 panels
// [ceil(n / 16)][k][16]. C goes, each where it is not null, to `out` rounded to
// bfloat16 and to `out_float`, rows of `out_stride`. `scratch`: Bf16Scratch(k)
// floats. n is a multiple of 32 but for the last columns of W.
void GemmBf16Avx512(int64_t m, int64_t k, int64_t n, const uint16_t* x,
                    const uint16_t* panels, int64_t out_stride, uint16_t* out,
                    float* out_float, float* scratch);
int64_t Bf16BlockRows(int64_t k);
int64_t Bf16Scratch(int64_t k);

// One panel of `columns` rows of W [out, k] (their transpose), zero-padded.
void PackBf16Panel(int64_t k, int64_t columns, const uint16_t* rows,
                   uint16_t* panel);

bool Avx512Supported();

}  // namespace atod::model
