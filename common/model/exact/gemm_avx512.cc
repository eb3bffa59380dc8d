#include "common/model/exact/gemm_avx512.h"

// Compiled for AVX-512: nothing here may be shared with other files (no
// templates of the standard library), or it would run on machines without.

#ifdef __AVX512F__
#include <immintrin.h>

namespace atod::model {
namespace {

// Rows and panels of a tile: 24 of the 32 registers add up, two hold B.
constexpr int64_t kRows = 12;
constexpr int64_t kPanels = 2;
// Depth of a block: a tile's two panels take 24 KiB.
constexpr int64_t kDepth = 192;
// Rows of A that are packed at a time, 120 KiB with kDepth.
constexpr int64_t kBlockRows = 13 * kRows;
// Floats of A that a bfloat16 product packs at a time: half of a core's cache.
constexpr int64_t kBlockFloats = 13 * kRows * 1792;
// Panels that a single row takes at a time.
constexpr int64_t kRowPanels = 8;
// Rows of a bfloat16 product that are one tile.
constexpr int64_t kFewRows = 16;

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

// Lanes of a panel that are columns of C, of `left` columns from its first on.
inline __mmask16 Lanes(int64_t left) {
  return left >= kPanel ? __mmask16{0xFFFF}
                        : static_cast<__mmask16>((1u << left) - 1);
}

inline __m512 LoadPanel(const float* p) { return _mm512_loadu_ps(p); }
inline __m512 LoadPanel(const uint16_t* p) {  // bfloat16
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  // With a mask of all lanes: g++ 12 warns of the plain ones.
  constexpr __mmask16 kAll = 0xFFFF;
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(
      kAll, _mm512_maskz_cvtepu16_epi32(kAll, bits), 16));
}

// C += A B (or =, with `fresh`) for R rows and P panels, depth k. A(i, p) =
// a[i * row_step + p * column_step]; `columns` are left in C.
template <int R, int P, bool kUnitRows, typename B>
inline void Tile(int64_t k, const float* a, int64_t row_step,
                 int64_t column_step, const B* b, int64_t panel_stride,
                 int64_t columns, float* c, int64_t c_stride, bool fresh) {
  __m512 sum[R][P];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < P; ++j)
      sum[i][j] = fresh ? _mm512_setzero_ps()
                        : _mm512_maskz_loadu_ps(Lanes(columns - j * kPanel),
                                                c + i * c_stride + j * kPanel);
  for (int64_t p = 0; p < k; ++p) {
    __m512 right[P];
    for (int j = 0; j < P; ++j)
      right[j] = LoadPanel(b + j * panel_stride + p * kPanel);
    const float* column = a + p * column_step;
    for (int i = 0; i < R; ++i) {
      const __m512 left =
          _mm512_set1_ps(kUnitRows ? column[i] : column[i * row_step]);
      for (int j = 0; j < P; ++j)
        sum[i][j] = _mm512_fmadd_ps(left, right[j], sum[i][j]);
    }
  }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < P; ++j)
      _mm512_mask_storeu_ps(c + i * c_stride + j * kPanel,
                            Lanes(columns - j * kPanel), sum[i][j]);
}

template <typename B>
struct TileArguments {
  int64_t k;
  const float* a;
  int64_t row_step, column_step;
  const B* b;
  int64_t panel_stride, columns;
  float* c;
  int64_t c_stride;
  bool fresh;
};

template <int R, bool kUnitRows, typename B>
void Run(const TileArguments<B>& t) {
  if (t.columns > kPanel)
    Tile<R, kPanels, kUnitRows>(t.k, t.a, t.row_step, t.column_step, t.b,
                                t.panel_stride, t.columns, t.c, t.c_stride,
                                t.fresh);
  else
    Tile<R, 1, kUnitRows>(t.k, t.a, t.row_step, t.column_step, t.b,
                          t.panel_stride, t.columns, t.c, t.c_stride, t.fresh);
}

template <bool kUnitRows, typename B>
void RunRows(int64_t rows, const TileArguments<B>& t) {
  using Function = void (*)(const TileArguments<B>&);
  static constexpr Function kFunctions[kRows] = {
      Run<1, kUnitRows, B>,  Run<2, kUnitRows, B>,  Run<3, kUnitRows, B>,
      Run<4, kUnitRows, B>,  Run<5, kUnitRows, B>,  Run<6, kUnitRows, B>,
      Run<7, kUnitRows, B>,  Run<8, kUnitRows, B>,  Run<9, kUnitRows, B>,
      Run<10, kUnitRows, B>, Run<11, kUnitRows, B>, Run<12, kUnitRows, B>};
  kFunctions[rows - 1](t);
}

// A block of rows times all of B. A is as in GemmA, or packed in tiles
// [k][rows of the tile].
template <typename B>
void Block(int64_t m, int64_t k, int64_t n, const float* a, int64_t row_step,
           int64_t column_step, bool packed, const B* panels,
           int64_t panel_stride, float* c, int64_t c_stride, bool fresh) {
  for (int64_t j = 0; j < n; j += kPanels * kPanel) {
    for (int64_t i = 0; i < m; i += kRows) {
      const int64_t rows = Min(kRows, m - i);
      const TileArguments<B> t = {k,
                                  packed ? a + i * k : a + i * row_step,
                                  row_step,
                                  packed ? rows : column_step,
                                  panels + j / kPanel * panel_stride,
                                  panel_stride,
                                  n - j,
                                  c + i * c_stride + j,
                                  c_stride,
                                  fresh};
      if (packed || row_step == 1)
        RunRows<true>(rows, t);
      else
        RunRows<false>(rows, t);
    }
  }
}

inline __m512 Widen(const uint16_t* p) { return LoadPanel(p); }

// Rows of bfloat16 [rows][k] as float32 [k][rows].
void WidenRows(int64_t rows, int64_t k, const uint16_t* x, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint16_t* const row = x + r * k;
    int64_t p = 0;
    for (; p + kPanel <= k; p += kPanel) {
      alignas(64) float wide[kPanel];
      _mm512_store_ps(wide, Widen(row + p));
      for (int64_t c = 0; c < kPanel; ++c) out[(p + c) * rows + r] = wide[c];
    }
    for (; p < k; ++p) {
      const uint32_t bits = static_cast<uint32_t>(row[p]) << 16;
      __builtin_memcpy(&out[p * rows + r], &bits, sizeof(bits));
    }
  }
}

void WidenPanels(int64_t k, int64_t count, const uint16_t* panels, float* out) {
  for (int64_t p = 0; p < count * k; ++p)
    _mm512_storeu_ps(out + p * kPanel, Widen(panels + p * kPanel));
}

// One row of sums, as it is or rounded to the nearest bfloat16 (even of two).
void StoreRow(const float* sums, int64_t columns, uint16_t* out,
              float* out_float) {
  for (int64_t c = 0; c < columns; c += kPanel) {
    const __mmask16 lanes = Lanes(columns - c);
    const __m512 x = _mm512_loadu_ps(sums + c);
    if (out_float != nullptr) _mm512_mask_storeu_ps(out_float + c, lanes, x);
    if (out == nullptr) continue;
    const __m512i bits = _mm512_castps_si512(x);
    constexpr __mmask16 kAll = 0xFFFF;
    const __m512i high = _mm512_maskz_srli_epi32(kAll, bits, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_maskz_srli_epi32(
        kAll,
        _mm512_add_epi32(bits,
                         _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF))),
        16);
    // Rounding could make infinity of a NaN.
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i result =
        _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
    _mm512_mask_cvtepi32_storeu_epi16(out + c, lanes, result);
  }
}

// Rows of sums [rows][stride] to their places from out[at] on.
void StoreRows(int64_t rows, int64_t stride, const float* sums, int64_t columns,
               int64_t at, int64_t out_stride, uint16_t* out,
               float* out_float) {
  for (int64_t r = 0; r < rows; ++r)
    StoreRow(sums + r * stride, columns,
             out != nullptr ? out + at + r * out_stride : nullptr,
             out_float != nullptr ? out_float + at + r * out_stride : nullptr);
}

struct FewRows {
  int64_t k, n;
  const float* packed;  // [k][rows]
  const uint16_t* panels;
  int64_t out_stride;
  uint16_t* out;
  float* out_float;
};

// Few rows read B once, in order, and widen it on the way. The fewer the rows,
// the more panels at a time keep the adders busy.
template <int R>
void Few(const FewRows& f) {
  constexpr int kTogether = R == 1       ? kRowPanels
                            : R < 4      ? 4
                            : R <= kRows ? 2
                                         : 1;
  constexpr int64_t kWide = kTogether * kPanel;
  float sums[R * kWide];
  int64_t j = 0;
  for (; j + kWide <= f.n; j += kWide) {
    Tile<R, kTogether, true>(f.k, f.packed, 1, R, f.panels + j * f.k,
                             f.k * kPanel, kWide, sums, kWide, true);
    StoreRows(R, kWide, sums, kWide, j, f.out_stride, f.out, f.out_float);
  }
  for (; j < f.n; j += kPanel) {
    const int64_t columns = Min(kPanel, f.n - j);
    Tile<R, 1, true>(f.k, f.packed, 1, R, f.panels + j * f.k, f.k * kPanel,
                     columns, sums, kPanel, true);
    StoreRows(R, kPanel, sums, columns, j, f.out_stride, f.out, f.out_float);
  }
}

template <int R>
void FewUpTo(int64_t rows, const FewRows& f) {
  if (rows == R) return Few<R>(f);
  if constexpr (R > 1) FewUpTo<R - 1>(rows, f);
}

void PackRows(int64_t m, int64_t k, const float* a, int64_t row_step,
              int64_t column_step, float* out) {
  for (int64_t i = 0; i < m; i += kRows) {
    const int64_t rows = Min(kRows, m - i);
    const float* from = a + i * row_step;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t p = 0; p < k; ++p)
        out[p * rows + r] = from[r * row_step + p * column_step];
    out += rows * k;
  }
}

// One row reads B once, in order: eight panels keep the adders busy.
template <typename B>
void SingleRow(int64_t k, int64_t n, const float* a, int64_t column_step,
               const B* panels, int64_t panel_stride, float* c, bool fresh) {
  int64_t j = 0;
  for (; j + kRowPanels * kPanel <= n; j += kRowPanels * kPanel)
    Tile<1, kRowPanels, false>(k, a, 0, column_step,
                               panels + j / kPanel * panel_stride, panel_stride,
                               kRowPanels * kPanel, c + j, 0, fresh);
  for (; j < n; j += kPanel)
    Tile<1, 1, false>(k, a, 0, column_step, panels + j / kPanel * panel_stride,
                      panel_stride, n - j, c + j, 0, fresh);
}

template <typename B>
void Product(int64_t m, int64_t k, int64_t n, GemmA a, const B* panels,
             int64_t panel_stride, float* c, int64_t c_stride,
             bool accumulate) {
  const int64_t row_step = a.transposed ? 1 : a.stride;
  const int64_t column_step = a.transposed ? a.stride : 1;
  if (m == 1)
    return SingleRow(k, n, a.data, column_step, panels, panel_stride, c,
                     !accumulate);
  // Rows far apart collide in the cache; packing pays when they are used often.
  const bool pack = k > kDepth / 2 && n >= 8 * kPanel;
  // On the stack: thread-local memory of this size would not fit the small
  // stacks of other libraries' threads.
  alignas(64) float packed[kBlockRows * kDepth];
  for (int64_t i = 0; i < m; i += kBlockRows) {
    const int64_t rows = Min(kBlockRows, m - i);
    for (int64_t p = 0; p < k; p += kDepth) {
      const int64_t depth = Min(kDepth, k - p);
      const float* left = a.data + i * row_step + p * column_step;
      if (pack) PackRows(rows, depth, left, row_step, column_step, packed);
      Block(rows, depth, n, pack ? packed : left, row_step, column_step, pack,
            panels + p * kPanel, panel_stride, c + i * c_stride, c_stride,
            !accumulate && p == 0);
    }
  }
}

}  // namespace

void GemmAvx512(int64_t m, int64_t k, int64_t n, GemmA a, GemmB b, float* c,
                int64_t c_stride, bool accumulate) {
  Product(m, k, n, a, b.panels, b.panel_stride, c, c_stride, accumulate);
}

int64_t Bf16BlockRows(int64_t k) {
  const int64_t tiles = kBlockFloats / (kRows * k);
  return kRows * Min(13, tiles < 1 ? 1 : tiles);
}

int64_t Bf16Scratch(int64_t k) {
  return Bf16BlockRows(k) * k + kPanels * kPanel * k;
}

void GemmBf16Avx512(int64_t m, int64_t k, int64_t n, const uint16_t* x,
                    const uint16_t* panels, int64_t out_stride, uint16_t* out,
                    float* out_float, float* scratch) {
  if (m <= kFewRows) {
    WidenRows(m, k, x, scratch);
    return FewUpTo<kFewRows>(
        m, {k, n, scratch, panels, out_stride, out, out_float});
  }
  float* const packed = scratch;
  float* const widened = scratch + Bf16BlockRows(k) * k;
  for (int64_t i = 0; i < m; i += kRows)
    WidenRows(Min(kRows, m - i), k, x + i * k, packed + i * k);
  for (int64_t j = 0; j < n; j += kPanels * kPanel) {
    const int64_t columns = Min(kPanels * kPanel, n - j);
    WidenPanels(k, columns > kPanel ? 2 : 1, panels + j * k, widened);
    for (int64_t i = 0; i < m; i += kRows) {
      const int64_t rows = Min(kRows, m - i);
      float sums[kRows * kPanels * kPanel];
      RunRows<true>(rows, TileArguments<float>{k, packed + i * k, 1, rows,
                                               widened, k * kPanel, columns,
                                               sums, kPanels * kPanel, true});
      StoreRows(rows, kPanels * kPanel, sums, columns, (i * out_stride) + j,
                out_stride, out, out_float);
    }
  }
}

void PackBf16Panel(int64_t k, int64_t columns, const uint16_t* rows,
                   uint16_t* panel) {
  for (int64_t p = 0; p < k; ++p)
    for (int64_t c = 0; c < kPanel; ++c)
      panel[p * kPanel + c] = c < columns ? rows[c * k + p] : 0;
}

bool Avx512Supported() {
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

}  // namespace atod::model
#else
namespace atod::model {
void GemmAvx512(int64_t, int64_t, int64_t, GemmA, GemmB, float*, int64_t,
                bool) {}
void GemmBf16Avx512(int64_t, int64_t, int64_t, const uint16_t*, const uint16_t*,
                    int64_t, uint16_t*, float*, float*) {}
int64_t Bf16BlockRows(int64_t) { return 1; }
int64_t Bf16Scratch(int64_t) { return 0; }
void PackBf16Panel(int64_t, int64_t, const uint16_t*, uint16_t*) {}
bool Avx512Supported() { return false; }
}  // namespace atod::model
#endif
