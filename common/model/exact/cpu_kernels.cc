#include "common/model/exact/cpu_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/model/exact/gemm_avx512.h"
#ifdef __FMA__
#include <immintrin.h>
#endif

namespace atod::model {
namespace {

using Vec = float __attribute__((vector_size(32)));
using IntVec = int32_t __attribute__((vector_size(32)));
constexpr int64_t kLanes = 8;

inline Vec Load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

inline void Store(float* p, Vec v) { std::memcpy(p, &v, sizeof(v)); }

inline Vec Splat(float x) { return Vec{x, x, x, x, x, x, x, x}; }

inline Vec Fma(Vec a, Vec b, Vec c) {
#ifdef __FMA__
  return _mm256_fmadd_ps(a, b, c);
#else
  for (int i = 0; i < kLanes; ++i) c[i] = std::fma(a[i], b[i], c[i]);
  return c;
#endif
}

inline Vec Max(Vec a, Vec b) { return a > b ? a : b; }

// Pairwise, always in the same order.
inline float Sum(Vec v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

inline float MaxOf(Vec v) {
  float m = v[0];
  for (int i = 1; i < kLanes; ++i) m = std::max(m, v[i]);
  return m;
}

// exp to about one unit in the last place; below -87.3 the result is that of
// -87.3 (1e-38).
inline Vec Exp(Vec x) {
  x = Max(x, Splat(-87.3f));
  x = x < Splat(88.3f) ? x : Splat(88.3f);
  // 2^n * e^r, |r| <= ln(2) / 2. Adding 1.5 * 2^23 rounds to a whole number.
  const Vec magic = Splat(12582912.0f);
  const Vec shifted = Fma(x, Splat(1.44269504f), magic);
  const Vec n = shifted - magic;
  Vec r = Fma(n, Splat(-0.693359375f), x);
  r = Fma(n, Splat(2.12194440e-4f), r);
  Vec p = Splat(1.9875691500e-4f);
  p = Fma(p, r, Splat(1.3981999507e-3f));
  p = Fma(p, r, Splat(8.3334519073e-3f));
  p = Fma(p, r, Splat(4.1665795894e-2f));
  p = Fma(p, r, Splat(1.6666665459e-1f));
  p = Fma(p, r, Splat(5.0000001201e-1f));
  p = Fma(p, r * r, r + Splat(1.0f));
  const IntVec exponent = ((IntVec)shifted - (IntVec)magic + 127) << 23;
  return p * (Vec)exponent;
}

// The first n lanes of p, the rest `fill`.
inline Vec LoadSome(const float* p, int64_t n, float fill) {
  Vec v = Splat(fill);
  std::memcpy(&v, p, n * sizeof(float));
  return v;
}

// One tile: kRows rows of A times kPanels panels of B.
template <int kRows, int kPanels, bool kTransposed>
inline void Tile(int64_t k, const float* a, int64_t a_stride, const float* b,
                 int64_t panel_stride, int64_t n, float* c, int64_t c_stride,
                 bool accumulate) {
  constexpr int kVecs = 2 * kPanels;
  Vec acc[kRows][kVecs];
  // `n` < kPanels * 16 only in the last panel of C, which goes by a buffer.
  const bool whole = n >= kPanels * kPanel;
  alignas(32) float edge[kRows][kPanels * kPanel] = {};
  if (accumulate) {
    for (int i = 0; i < kRows; ++i) {
      const float* row = c + i * c_stride;
      if (!whole) {
        std::memcpy(edge[i], row, n * sizeof(float));
        row = edge[i];
      }
      for (int j = 0; j < kVecs; ++j) acc[i][j] = Load(row + j * kLanes);
    }
  } else {
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kVecs; ++j) acc[i][j] = Vec{};
  }
  for (int64_t p = 0; p < k; ++p) {
    Vec right[kVecs];
    for (int j = 0; j < kVecs; ++j)
      right[j] = Load(b + (j / 2) * panel_stride + p * kPanel + j % 2 * kLanes);
    for (int i = 0; i < kRows; ++i) {
      const Vec left =
          Splat(kTransposed ? a[p * a_stride + i] : a[i * a_stride + p]);
      for (int j = 0; j < kVecs; ++j)
        acc[i][j] = Fma(left, right[j], acc[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    float* row = whole ? c + i * c_stride : edge[i];
    for (int j = 0; j < kVecs; ++j) Store(row + j * kLanes, acc[i][j]);
    if (!whole) std::memcpy(c + i * c_stride, edge[i], n * sizeof(float));
  }
}

template <bool kTransposed>
void GemmRows(int64_t m, int64_t k, int64_t n, const float* a, int64_t a_stride,
              GemmB b, float* c, int64_t c_stride, bool accumulate) {
  const int64_t row_step = kTransposed ? 1 : a_stride;
  if (m == 1) {
    // A single row keeps the multipliers busy with four panels at a time.
    int64_t j = 0;
    for (; j + 4 * kPanel <= n; j += 4 * kPanel)
      Tile<1, 4, kTransposed>(
          k, a, a_stride, b.panels + j / kPanel * b.panel_stride,
          b.panel_stride, 4 * kPanel, c + j, c_stride, accumulate);
    for (; j < n; j += kPanel)
      Tile<1, 1, kTransposed>(
          k, a, a_stride, b.panels + j / kPanel * b.panel_stride,
          b.panel_stride, n - j, c + j, c_stride, accumulate);
    return;
  }
  for (int64_t j = 0; j < n; j += kPanel) {
    const float* panel = b.panels + j / kPanel * b.panel_stride;
    int64_t i = 0;
    for (; i + 6 <= m; i += 6)
      Tile<6, 1, kTransposed>(k, a + i * row_step, a_stride, panel, 0, n - j,
                              c + i * c_stride + j, c_stride, accumulate);
    const float* rest = a + i * row_step;
    float* out = c + i * c_stride + j;
    switch (m - i) {
      case 5:
        Tile<5, 1, kTransposed>(k, rest, a_stride, panel, 0, n - j, out,
                                c_stride, accumulate);
        break;
      case 4:
        Tile<4, 1, kTransposed>(k, rest, a_stride, panel, 0, n - j, out,
                                c_stride, accumulate);
        break;
      case 3:
        Tile<3, 1, kTransposed>(k, rest, a_stride, panel, 0, n - j, out,
                                c_stride, accumulate);
        break;
      case 2:
        Tile<2, 1, kTransposed>(k, rest, a_stride, panel, 0, n - j, out,
                                c_stride, accumulate);
        break;
      case 1:
        Tile<1, 1, kTransposed>(k, rest, a_stride, panel, 0, n - j, out,
                                c_stride, accumulate);
        break;
    }
  }
}

inline float InverseRms(int64_t width, const float* x, float eps) {
  Vec sum{};
  for (int64_t j = 0; j < width; j += kLanes)
    sum = Fma(Load(x + j), Load(x + j), sum);
  return 1.0f / std::sqrt(Sum(sum) / static_cast<float>(width) + eps);
}

}  // namespace

void PackPanels(const float* b, int64_t k, int64_t n, int64_t row_stride,
                int64_t col_stride, float* panels) {
  for (int64_t j = 0; j < n; j += kPanel) {
    const int64_t columns = std::min(kPanel, n - j);
    float* panel = panels + j * k;
    if (columns < kPanel) std::fill_n(panel, k * kPanel, 0.0f);
    if (col_stride == 1) {
      if (columns == kPanel) {
        for (int64_t p = 0; p < k; ++p) {
          const float* row = b + p * row_stride + j;
          Store(panel + p * kPanel, Load(row));
          Store(panel + p * kPanel + kLanes, Load(row + kLanes));
        }
      } else {
        for (int64_t p = 0; p < k; ++p)
          std::memcpy(panel + p * kPanel, b + p * row_stride + j,
                      columns * sizeof(float));
      }
    } else {
      for (int64_t c = 0; c < columns; ++c) {
        const float* column = b + (j + c) * col_stride;
        for (int64_t p = 0; p < k; ++p)
          panel[p * kPanel + c] = column[p * row_stride];
      }
    }
  }
}

void GemmAvx2(int64_t m, int64_t k, int64_t n, GemmA a, GemmB b, float* c,
              int64_t c_stride, bool accumulate) {
  if (a.transposed)
    GemmRows<true>(m, k, n, a.data, a.stride, b, c, c_stride, accumulate);
  else
    GemmRows<false>(m, k, n, a.data, a.stride, b, c, c_stride, accumulate);
}

void Gemm(int64_t m, int64_t k, int64_t n, GemmA a, GemmB b, float* c,
          int64_t c_stride, bool accumulate) {
  static const bool kWide = Avx512Supported();
  (kWide ? GemmAvx512 : GemmAvx2)(m, k, n, a, b, c, c_stride, accumulate);
}

void RmsNorm(int64_t rows, int64_t width, const float* x, const float* w,
             float eps, float* y) {
  for (int64_t i = 0; i < rows; ++i, x += width, y += width) {
    const Vec inv = Splat(InverseRms(width, x, eps));
    for (int64_t j = 0; j < width; j += kLanes)
      Store(y + j, Load(x + j) * inv * Load(w + j));
  }
}

void RmsNormBackward(int64_t rows, int64_t width, const float* x,
                     const float* w, float eps, const float* dy, float* dx,
                     bool accumulate, float* dw) {
  for (int64_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
    const float inv = InverseRms(width, x, eps);
    Vec dot{};
    for (int64_t j = 0; j < width; j += kLanes)
      dot = Fma(Load(dy + j) * Load(w + j), Load(x + j), dot);
    const float pull = Sum(dot) * inv * inv * inv / static_cast<float>(width);
    for (int64_t j = 0; j < width; j += kLanes) {
      const Vec xj = Load(x + j), dyj = Load(dy + j);
      Vec d = dyj * Load(w + j) * Splat(inv) - xj * Splat(pull);
      if (accumulate) d += Load(dx + j);
      Store(dw + j, Fma(dyj * Splat(inv), xj, Load(dw + j)));
      Store(dx + j, d);
    }
  }
}

void Rotate(int64_t dim, const float* x, const float* cos, const float* sin,
            bool inverse, float* y) {
  const int64_t half = dim / 2;
  for (int64_t j = 0; j < half; j += kLanes) {
    const Vec a = Load(x + j), b = Load(x + half + j);
    const Vec c = Load(cos + j), s = inverse ? -Load(sin + j) : Load(sin + j);
    Store(y + j, Fma(a, c, -(b * s)));
    Store(y + half + j, Fma(b, c, a * s));
  }
}

void SwiGlu(int64_t rows, int64_t width, const float* gate_up, float* act) {
  const Vec one = Splat(1.0f);
  for (int64_t i = 0; i < rows; ++i, gate_up += 2 * width, act += width) {
    for (int64_t j = 0; j < width; j += kLanes) {
      const Vec g = Load(gate_up + j);
      Store(act + j, g / (one + Exp(-g)) * Load(gate_up + width + j));
    }
  }
}

void SwiGluBackward(int64_t rows, int64_t width, const float* gate_up,
                    const float* d_act, float* d_gate_up) {
  const Vec one = Splat(1.0f);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < width; j += kLanes) {
      const Vec g = Load(gate_up + j), up = Load(gate_up + width + j);
      const Vec d = Load(d_act + j);
      const Vec sigmoid = one / (one + Exp(-g));
      const Vec slope = sigmoid * Fma(g, one - sigmoid, one);
      Store(d_gate_up + j, d * up * slope);
      Store(d_gate_up + width + j, d * g * sigmoid);
    }
    gate_up += 2 * width;
    d_gate_up += 2 * width;
    d_act += width;
  }
}

void CausalSoftmax(int64_t rows, int64_t stride, const int32_t* limits,
                   float scale, float* scores) {
  for (int64_t i = 0; i < rows; ++i, scores += stride) {
    const int64_t n = limits[i];
    for (int64_t j = n; j < stride; ++j) scores[j] = -INFINITY;
    Vec most = Splat(-INFINITY);
    for (int64_t j = 0; j < n; j += kLanes) most = Max(most, Load(scores + j));
    const Vec shift = Splat(-MaxOf(most) * scale);
    Vec sum{};
    int64_t j = 0;
    for (; j < n; j += kLanes) {
      const Vec s = Load(scores + j);
      Vec e = Exp(Fma(s, Splat(scale), shift));
      e = s == Splat(-INFINITY) ? Vec{} : e;
      sum += e;
      Store(scores + j, e);
    }
    const Vec inv = Splat(1.0f / Sum(sum));
    for (int64_t t = 0; t < j; t += kLanes)
      Store(scores + t, Load(scores + t) * inv);
    for (; j < stride; j += kLanes) Store(scores + j, Vec{});
  }
}

void CausalSoftmaxBackward(int64_t rows, int64_t stride, float scale,
                           const float* p, float* dp) {
  for (int64_t i = 0; i < rows; ++i, p += stride, dp += stride) {
    Vec dot{};
    for (int64_t j = 0; j < stride; j += kLanes)
      dot = Fma(Load(p + j), Load(dp + j), dot);
    const Vec mean = Splat(Sum(dot)), s = Splat(scale);
    for (int64_t j = 0; j < stride; j += kLanes)
      Store(dp + j, s * Load(p + j) * (Load(dp + j) - mean));
  }
}

float LogSumExp(int64_t n, const float* x, float inv_temperature) {
  const int64_t whole = n / kLanes * kLanes;
  Vec most = LoadSome(x + whole, n - whole, -INFINITY);
  for (int64_t j = 0; j < whole; j += kLanes) most = Max(most, Load(x + j));
  const float top = MaxOf(most) * inv_temperature;
  const Vec t = Splat(inv_temperature), shift = Splat(-top);
  Vec sum{};
  for (int64_t j = 0; j < whole; j += kLanes)
    sum += Exp(Fma(Load(x + j), t, shift));
  if (whole < n) {
    const Vec s = LoadSome(x + whole, n - whole, -INFINITY);
    sum += s == Splat(-INFINITY) ? Vec{} : Exp(Fma(s, t, shift));
  }
  return top + std::log(Sum(sum));
}

float Entropy(int64_t n, const float* x, float inv_temperature, float lse) {
  const Vec t = Splat(inv_temperature), shift = Splat(-lse);
  const int64_t whole = n / kLanes * kLanes;
  Vec sum{};
  for (int64_t j = 0; j < whole; j += kLanes) {
    const Vec logp = Fma(Load(x + j), t, shift);
    sum = Fma(Exp(logp), logp, sum);
  }
  float rest = 0;
  for (int64_t j = whole; j < n; ++j) {
    const float logp = x[j] * inv_temperature - lse;
    rest += std::exp(logp) * logp;
  }
  return -(Sum(sum) + rest);
}

void ScaledProbabilities(int64_t n, float inv_temperature, float lse,
                         float scale, float* x) {
  const Vec t = Splat(inv_temperature), shift = Splat(-lse), s = Splat(scale);
  const int64_t whole = n / kLanes * kLanes;
  for (int64_t j = 0; j < whole; j += kLanes)
    Store(x + j, s * Exp(Fma(Load(x + j), t, shift)));
  if (whole < n) {
    const Vec e = s * Exp(Fma(LoadSome(x + whole, n - whole, 0), t, shift));
    std::memcpy(x + whole, &e, (n - whole) * sizeof(float));
  }
}

void AddTo(int64_t n, const float* x, float* y) {
  for (int64_t j = 0; j < n; ++j) y[j] += x[j];
}

bool CpuKernelsSupported() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

}  // namespace atod::model
