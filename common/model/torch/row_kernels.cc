#include "common/model/torch/row_kernels.h"

// Compiled for AVX-512: nothing here may be shared with other files (no
// templates of the standard library), or it would run on machines without.

#ifdef __AVX512F__
#include <immintrin.h>

namespace atod::model {
namespace {

constexpr int64_t kLanes = 16;
constexpr __mmask16 kAll = 0xFFFF;  // g++ 12 warns of unmasked intrinsics

inline __m512 Load(const float* p) { return _mm512_loadu_ps(p); }
inline __m512 Load(const uint16_t* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(
      kAll, _mm512_maskz_cvtepu16_epi32(kAll, bits), 16));
}

// The bits of the nearest bfloat16, even of two, in the high halves.
inline __m512i Rounded(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_maskz_srli_epi32(kAll, bits, 16),
                                       _mm512_set1_epi32(1));
  const __m512i up =
      _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  // Rounding could make infinity of a NaN.
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x400000));
}

inline void Store(float* p, __m512 x) { _mm512_storeu_ps(p, x); }
inline void Store(uint16_t* p, __m512 x) {
  _mm512_mask_cvtepi32_storeu_epi16(
      p, kAll, _mm512_maskz_srli_epi32(kAll, Rounded(x), 16));
}

// As it is once it was stored.
inline __m512 AsStored(const float*, __m512 x) { return x; }
inline __m512 AsStored(const uint16_t*, __m512 x) {
  return _mm512_castsi512_ps(_mm512_and_si512(
      Rounded(x), _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
}

inline float Sum(__m512 x) {
  const __m512 a = _mm512_add_ps(
      x, _mm512_maskz_shuffle_f32x4(kAll, x, x, _MM_SHUFFLE(1, 0, 3, 2)));
  const __m512 b = _mm512_add_ps(
      a, _mm512_maskz_shuffle_f32x4(kAll, a, a, _MM_SHUFFLE(2, 3, 0, 1)));
  const __m512 c = _mm512_add_ps(
      b, _mm512_maskz_permute_ps(kAll, b, _MM_SHUFFLE(1, 0, 3, 2)));
  const __m512 d = _mm512_add_ps(
      c, _mm512_maskz_permute_ps(kAll, c, _MM_SHUFFLE(2, 3, 0, 1)));
  return _mm512_cvtss_f32(d);
}

// e^x, within two units in the last place; 0 far below, infinity far above.
inline __m512 Exp(__m512 x) {
  const __m512 low = _mm512_set1_ps(-104), high = _mm512_set1_ps(89);
  x = _mm512_maskz_max_ps(kAll, low, _mm512_maskz_min_ps(kAll, high, x));
  const __m512 n = _mm512_maskz_roundscale_ps(
      kAll, _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  // ln 2 in two parts.
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.0f / 720);
  constexpr float kSeries[] = {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1};
  for (const float c : kSeries) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  return _mm512_maskz_scalef_ps(kAll, p, n);
}

template <typename T>
float InverseNorm(int64_t width, const T* x, float eps) {
  __m512 squares = _mm512_setzero_ps();
  for (int64_t i = 0; i < width; i += kLanes) {
    const __m512 v = Load(x + i);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  return 1 / __builtin_sqrtf(Sum(squares) / static_cast<float>(width) + eps);
}

template <typename T>
inline __m512 Normed(const T* x, const T* weight, __m512 inverse) {
  return AsStored(x,
                  _mm512_mul_ps(Load(weight),
                                AsStored(x, _mm512_mul_ps(Load(x), inverse))));
}

// e^(score - largest) of a row, in place; returns one over their sum.
float Softmax(int64_t n, float* scores) {
  float largest = scores[0];
  for (int64_t i = 1; i < n; ++i)
    if (scores[i] > largest) largest = scores[i];
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = n - i;
    const __mmask16 lanes =
        left >= kLanes ? kAll : static_cast<__mmask16>((1u << left) - 1);
    const __m512 e = Exp(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, scores + i),
                                       _mm512_set1_ps(largest)));
    _mm512_mask_storeu_ps(scores + i, lanes, e);
    sum = _mm512_mask_add_ps(sum, lanes, sum, e);
  }
  return 1 / Sum(sum);
}

}  // namespace

template <typename T>
void RmsNormRow(int64_t width, const T* x, const T* weight, float eps, T* out) {
  const __m512 inverse = _mm512_set1_ps(InverseNorm(width, x, eps));
  for (int64_t i = 0; i < width; i += kLanes)
    Store(out + i, Normed(x + i, weight + i, inverse));
}

template <typename T>
void NormRotateHead(int64_t dim, const T* weight, float eps, const T* cos,
                    const T* sin, T* head) {
  const __m512 inverse = _mm512_set1_ps(InverseNorm(dim, head, eps));
  const int64_t half = dim / 2;
  for (int64_t i = 0; i < half; i += kLanes) {
    const __m512 a = Normed(head + i, weight + i, inverse);
    const __m512 b = Normed(head + half + i, weight + half + i, inverse);
    Store(head + i,
          _mm512_fnmadd_ps(b, Load(sin + i), _mm512_mul_ps(a, Load(cos + i))));
    Store(head + half + i,
          _mm512_fmadd_ps(a, Load(sin + half + i),
                          _mm512_mul_ps(b, Load(cos + half + i))));
  }
}

template <typename T>
void SwiGluRow(int64_t width, const T* gate, const T* up, T* out) {
  const __m512 one = _mm512_set1_ps(1);
  for (int64_t i = 0; i < width; i += kLanes) {
    const __m512 g = Load(gate + i);
    const __m512 e = Exp(_mm512_sub_ps(_mm512_setzero_ps(), g));
    const __m512 silu = AsStored(out, _mm512_div_ps(g, _mm512_add_ps(one, e)));
    Store(out + i, _mm512_mul_ps(silu, Load(up + i)));
  }
}

template <typename T>
void AttendHeads(const QueryHeads<T>& h) {
  float* const scores = h.scratch;                   // [group][rows]
  float* const sums = h.scratch + h.group * h.rows;  // [group][dim]
  const float scale = 1 / __builtin_sqrtf(static_cast<float>(h.dim));
  for (int64_t g = 0; g < h.group; ++g)
    for (int64_t i = 0; i < h.dim; i += kLanes)
      _mm512_storeu_ps(
          sums + g * h.dim + i,
          _mm512_mul_ps(Load(h.q + g * h.dim + i), _mm512_set1_ps(scale)));
  for (int64_t t = 0; t < h.rows; ++t) {
    const T* const key = h.keys + t * h.stride;
    for (int64_t g = 0; g < h.group; ++g) {
      __m512 dot = _mm512_setzero_ps();
      for (int64_t i = 0; i < h.dim; i += kLanes)
        dot = _mm512_fmadd_ps(_mm512_loadu_ps(sums + g * h.dim + i),
                              Load(key + i), dot);
      scores[g * h.rows + t] = Sum(dot);
    }
  }
  for (int64_t g = 0; g < h.group; ++g) {
    float* const p = scores + g * h.rows;
    const __m512 inverse = _mm512_set1_ps(Softmax(h.rows, p));
    for (int64_t i = 0; i < h.dim; i += kLanes) {
      __m512 a = _mm512_setzero_ps(), b = a;
      int64_t t = 0;
      for (; t + 1 < h.rows; t += 2) {
        const T* const value = h.values + t * h.stride + i;
        a = _mm512_fmadd_ps(_mm512_set1_ps(p[t]), Load(value), a);
        b = _mm512_fmadd_ps(_mm512_set1_ps(p[t + 1]), Load(value + h.stride),
                            b);
      }
      if (t < h.rows)
        a = _mm512_fmadd_ps(_mm512_set1_ps(p[t]),
                            Load(h.values + t * h.stride + i), a);
      Store(h.out + g * h.dim + i, _mm512_mul_ps(_mm512_add_ps(a, b), inverse));
    }
  }
}

namespace {

// Two columns of the result at a time.
template <int R>
void Dot(int64_t k, int64_t n, const float* x, const uint16_t* w,
         int64_t stride, uint16_t* out) {
  for (int64_t j = 0; j < n; j += 2) {
    const uint16_t* const first = w + j * k;
    const uint16_t* const second = j + 1 < n ? first + k : first;
    __m512 a[R], b[R];
    for (int r = 0; r < R; ++r) a[r] = b[r] = _mm512_setzero_ps();
    for (int64_t p = 0; p < k; p += kLanes) {
      const __m512 u = Load(first + p), v = Load(second + p);
      for (int r = 0; r < R; ++r) {
        const __m512 left = _mm512_loadu_ps(x + r * k + p);
        a[r] = _mm512_fmadd_ps(left, u, a[r]);
        b[r] = _mm512_fmadd_ps(left, v, b[r]);
      }
    }
    for (int r = 0; r < R; ++r) {
      alignas(64) uint16_t rounded[kLanes];
      Store(rounded, _mm512_set1_ps(Sum(a[r])));
      out[r * stride + j] = rounded[0];
      Store(rounded, _mm512_set1_ps(Sum(b[r])));
      if (j + 1 < n) out[r * stride + j + 1] = rounded[0];
    }
  }
}

}  // namespace

void DotRows(int64_t rows, int64_t k, int64_t n, const float* x,
             const uint16_t* w, int64_t stride, uint16_t* out) {
  constexpr decltype(&Dot<1>) kDots[kDotRows] = {Dot<1>, Dot<2>, Dot<3>,
                                                 Dot<4>};
  kDots[rows - 1](k, n, x, w, stride, out);
}

bool HasMatrixTiles() { return __builtin_cpu_supports("amx-bf16"); }

}  // namespace atod::model
#else
namespace atod::model {
void DotRows(int64_t, int64_t, int64_t, const float*, const uint16_t*, int64_t,
             uint16_t*) {}
bool HasMatrixTiles() { return false; }
template <typename T>
void RmsNormRow(int64_t, const T*, const T*, float, T*) {}
template <typename T>
void NormRotateHead(int64_t, const T*, float, const T*, const T*, T*) {}
template <typename T>
void SwiGluRow(int64_t, const T*, const T*, T*) {}
template <typename T>
void AttendHeads(const QueryHeads<T>&) {}
}  // namespace atod::model
#endif

namespace atod::model {

template void RmsNormRow(int64_t, const float*, const float*, float, float*);
template void RmsNormRow(int64_t, const uint16_t*, const uint16_t*, float,
                         uint16_t*);
template void NormRotateHead(int64_t, const float*, float, const float*,
                             const float*, float*);
template void NormRotateHead(int64_t, const uint16_t*, float, const uint16_t*,
                             const uint16_t*, uint16_t*);
template void SwiGluRow(int64_t, const float*, const float*, float*);
template void SwiGluRow(int64_t, const uint16_t*, const uint16_t*, uint16_t*);
template void AttendHeads(const QueryHeads<float>&);
template void AttendHeads(const QueryHeads<uint16_t>&);

}  // namespace atod::model
