#pragma once

#include <cstdint>

namespace atod::model {

// Float32 kernels of the CPU path (cpu_decoder.h). Every output row is computed
// by one fixed sequence of operations that does not depend on how many rows
// there are or how they are split: results are equal to the bit under any
// batching. All widths (row lengths) are multiples of 16 unless said otherwise.

// Columns of a panel. A right operand B [k, n] is stored as ceil(n / 16)
// panels of [k][16], zero-padded, so that the inner loop reads it in order.
constexpr int64_t kPanel = 16;

inline int64_t PadToPanel(int64_t n) {
  return (n + kPanel - 1) / kPanel * kPanel;
}

// B(p, j) = b[p * row_stride + j * col_stride] -> panels, k * PadToPanel(n)
// floats.
void PackPanels(const float* b, int64_t k, int64_t n, int64_t row_stride,
                int64_t col_stride, float* panels);

struct GemmA {
  const float* data;
  int64_t stride;           // between rows, or between columns if transposed
  bool transposed = false;  // A(i, p) = data[p * stride + i]
};

struct GemmB {
  const float* panels;
  int64_t panel_stride;  // floats between panels, at least k * 16
};

// C [m, n] = A [m, k] B [k, n], or C += with `accumulate`. Any m, k, n. Every
// output is one chain of fused multiply-adds in the order of k, so it is equal
// to the bit on the widest vectors that this machine has (gemm_avx512.h) and on
// AVX2.
void Gemm(int64_t m, int64_t k, int64_t n, GemmA a, GemmB b, float* c,
          int64_t c_stride, bool accumulate);
void GemmAvx2(int64_t m, int64_t k, int64_t n, GemmA a, GemmB b, float* c,
              int64_t c_stride, bool accumulate);

// y = x / rms(x) * w for each of `rows` rows of `width` floats.
void RmsNorm(int64_t rows, int64_t width, const float* x, const float* w,
             float eps, float* y);

// Given dy of y = RmsNorm(x): dx (=|+=) and dw +=. dx may be dy.
void RmsNormBackward(int64_t rows, int64_t width, const float* x,
                     const float* w, float eps, const float* dy, float* dx,
                     bool accumulate, float* dw);

// One head: rotates (x[i], x[i + dim / 2]) by the angle whose cosine and sine
// are cos[i] and sin[i]; `inverse` turns back. y may be x. dim % 16 == 0.
void Rotate(int64_t dim, const float* x, const float* cos, const float* sin,
            bool inverse, float* y);

// gate_up rows are [gate | up], each `width` floats: act = silu(gate) * up.
void SwiGlu(int64_t rows, int64_t width, const float* gate_up, float* act);
// d_gate_up from d_act.
void SwiGluBackward(int64_t rows, int64_t width, const float* gate_up,
                    const float* d_act, float* d_gate_up);

// In place on rows of scores: p[j] = softmax(scale * s)[j] for j < limits[i],
// 0 up to `stride`.
void CausalSoftmax(int64_t rows, int64_t stride, const int32_t* limits,
                   float scale, float* scores);

// Given probabilities p and their gradient dp (in place): the gradient of the
// scores, scale * p * (dp - sum(p * dp)).
void CausalSoftmaxBackward(int64_t rows, int64_t stride, float scale,
                           const float* p, float* dp);

// log(sum(exp(x * inv_temperature))) of x[0 .. n), any n, in float32 with the
// maximum taken out.
float LogSumExp(int64_t n, const float* x, float inv_temperature);

// Entropy in nats of softmax(x * inv_temperature) whose LogSumExp is `lse`.
float Entropy(int64_t n, const float* x, float inv_temperature, float lse);

// x[j] = scale * exp(x[j] * inv_temperature - lse), any n.
void ScaledProbabilities(int64_t n, float inv_temperature, float lse,
                         float scale, float* x);

// y += x, any n.
void AddTo(int64_t n, const float* x, float* y);

// Whether this machine can run them (they are built for AVX2 with FMA).
bool CpuKernelsSupported();

}  // namespace atod::model
