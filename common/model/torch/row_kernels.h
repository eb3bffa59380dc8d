#pragma once

#include <cstdint>

// Loops over the numbers of a row for the back end torch on CPUs with AVX-512
// (Avx512Supported): what torch does in many passes over memory, in one. T is
// float or uint16_t, the bits of bfloat16; sums and everything between are
// float32. Widths are multiples of 16, of heads of 32. Memory need not be
// aligned. Thread-safe.
namespace atod::model {

// out = weight * x / sqrt(mean(x^2) + eps). out may be x.
template <typename T>
void RmsNormRow(int64_t width, const T* x, const T* weight, float eps, T* out);

// Norm of a head, then its two halves turned by their position's angles; in
// place. cos and sin [dim].
template <typename T>
void NormRotateHead(int64_t dim, const T* weight, float eps, const T* cos,
                    const T* sin, T* head);

// out = silu(gate) * up
template <typename T>
void SwiGluRow(int64_t width, const T* gate, const T* up, T* out);

// One query token's heads that share a key head: q [group, dim] at the end of
// `rows` keys and values, `stride` apart -> out [group, dim]. scratch: group *
// (rows + dim) floats.
template <typename T>
struct QueryHeads {
  int64_t group, dim, rows, stride;
  const T* q;
  const T* keys;
  const T* values;
  T* out;
  float* scratch;
};
template <typename T>
void AttendHeads(const QueryHeads<T>& heads);

// Rows of y = x W^T for few rows (at most kDotRows), all of bfloat16 as it is
// stored: x float32 [rows, k], w [n, k] -> out [rows] of `stride`. Reads W
// once.
inline constexpr int64_t kDotRows = 4;
void DotRows(int64_t rows, int64_t k, int64_t n, const float* x,
             const uint16_t* w, int64_t stride, uint16_t* out);

// Whether the processor multiplies bfloat16 matrices in tiles (AMX).
bool HasMatrixTiles();

}  // namespace atod::model
