#include "common/model/torch/row_ops.h"

#include <algorithm>
#include <type_traits>

#include "ATen/Parallel.h"
#include "common/model/exact/gemm_avx512.h"
#include "common/model/torch/row_kernels.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

// Numbers that are worth a thread.
constexpr int64_t kGrain = 1 << 15;

int64_t RowsAThread(int64_t width) {
  return std::max<int64_t>(1, kGrain / width);
}

template <typename T>
T* Data(const torch::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

// Calls f with a null pointer of the kernels' type of number.
template <typename F>
void ByType(const torch::Tensor& x, F f) {
  if (x.scalar_type() == torch::kFloat32)
    f(static_cast<float*>(nullptr));
  else
    f(static_cast<uint16_t*>(nullptr));
}

}  // namespace

bool HasRowOps(const torch::Tensor& x, int64_t width) {
  return x.is_cpu() && !torch::GradMode::is_enabled() && width % 32 == 0 &&
         (x.scalar_type() == torch::kFloat32 ||
          x.scalar_type() == torch::kBFloat16) &&
         Avx512Supported();
}

torch::Tensor RowNorm(const torch::Tensor& x, const torch::Tensor& weight,
                      double eps) {
  const torch::Tensor rows = x.contiguous(), w = weight.contiguous();
  const torch::Tensor out = torch::empty_like(rows);
  const int64_t width = rows.size(1);
  ByType(rows, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    at::parallel_for(
        0, rows.size(0), RowsAThread(width), [&](int64_t begin, int64_t end) {
          for (int64_t r = begin; r < end; ++r)
            RmsNormRow(width, Data<T>(rows) + r * width, Data<T>(w),
                       static_cast<float>(eps), Data<T>(out) + r * width);
        });
  });
  return out;
}

void NormRotate(const torch::Tensor& qkv, int64_t queries, int64_t keys,
                const torch::Tensor& q_weight, const torch::Tensor& k_weight,
                double eps, const torch::Tensor& cos,
                const torch::Tensor& sin) {
  const int64_t heads = qkv.size(1), dim = qkv.size(2);
  ByType(qkv, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    at::parallel_for(0, qkv.size(0), RowsAThread(heads * dim),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t r = begin; r < end; ++r) {
                         T* const row = Data<T>(qkv) + r * heads * dim;
                         for (int64_t h = 0; h < queries + keys; ++h)
                           NormRotateHead(
                               dim, Data<T>(h < queries ? q_weight : k_weight),
                               static_cast<float>(eps), Data<T>(cos) + r * dim,
                               Data<T>(sin) + r * dim, row + h * dim);
                       }
                     });
  });
}

torch::Tensor RowSwiGlu(const torch::Tensor& gate_up) {
  const torch::Tensor rows = gate_up.contiguous();
  const int64_t width = rows.size(1) / 2;
  const torch::Tensor out = torch::empty({rows.size(0), width}, rows.options());
  ByType(rows, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    at::parallel_for(
        0, rows.size(0), RowsAThread(width), [&](int64_t begin, int64_t end) {
          for (int64_t r = begin; r < end; ++r) {
            const T* const row = Data<T>(rows) + 2 * r * width;
            SwiGluRow(width, row, row + width, Data<T>(out) + r * width);
          }
        });
  });
  return out;
}

}  // namespace atod::model
