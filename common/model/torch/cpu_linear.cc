#include "common/model/torch/cpu_linear.h"

#include <algorithm>

#include "ATen/Parallel.h"
#include "common/model/exact/gemm_avx512.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

const uint16_t* Bits(const torch::Tensor& x) {
  return reinterpret_cast<const uint16_t*>(x.data_ptr<at::BFloat16>());
}

}  // namespace

std::shared_ptr<const CpuLinear> CpuLinear::Make(const torch::Tensor& weight) {
  if (!weight.is_cpu() || weight.scalar_type() != torch::kBFloat16 ||
      !Avx512Supported())
    return nullptr;
  return std::shared_ptr<const CpuLinear>(new CpuLinear(weight));
}

CpuLinear::CpuLinear(const torch::Tensor& weight)
    : out_(weight.size(0)),
      in_(weight.size(1)),
      panels_(torch::empty({PadToPanel(out_) / kPanel, in_, kPanel},
                           torch::kBFloat16)) {
  const uint16_t* const from = Bits(weight);
  uint16_t* const to =
      reinterpret_cast<uint16_t*>(panels_.data_ptr<at::BFloat16>());
  at::parallel_for(0, panels_.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j)
      PackBf16Panel(in_, std::min(kPanel, out_ - j * kPanel),
                    from + j * kPanel * in_, to + j * kPanel * in_);
  });
}

torch::Tensor CpuLinear::ApplyFloat(const torch::Tensor& x) const {
  const torch::Tensor exact = x.to(torch::kFloat32).contiguous();
  const int64_t rows = x.size(0);
  const torch::Tensor y = torch::empty({rows, out_}, exact.options());
  const float* const a = exact.data_ptr<float>();
  float* const c = y.data_ptr<float>();
  const uint16_t* const panels = Bits(panels_);
  at::parallel_for(0, panels_.size(0), 16, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kPanel;
    GemmBf16Avx512(rows, in_, std::min(out_, end * kPanel) - first, a,
                   panels + first * in_, c + first, out_);
  });
  return y;
}

torch::Tensor CpuLinear::Apply(const torch::Tensor& x) const {
  return ApplyFloat(x).to(torch::kBFloat16);
}

}  // namespace atod::model
