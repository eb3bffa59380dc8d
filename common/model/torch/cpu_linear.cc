#include "common/model/torch/cpu_linear.h"

#include <algorithm>
#include <vector>

#include "ATen/Parallel.h"
#include "common/model/exact/float_buffer.h"
#include "common/model/exact/gemm_avx512.h"
#include "common/model/torch/row_kernels.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

// Columns of a task, at most, where the rows are few.
constexpr int64_t kGroup = 1024;

const uint16_t* Bits(const torch::Tensor& x) {
  return reinterpret_cast<const uint16_t*>(x.data_ptr<at::BFloat16>());
}

uint16_t* MutableBits(const torch::Tensor& x) {
  return reinterpret_cast<uint16_t*>(x.data_ptr<at::BFloat16>());
}

}  // namespace

std::shared_ptr<const CpuLinear> CpuLinear::Make(const torch::Tensor& weight,
                                                 bool in_place) {
  if (!weight.is_cpu() || weight.scalar_type() != torch::kBFloat16 ||
      !Avx512Supported())
    return nullptr;
  return std::shared_ptr<const CpuLinear>(
      new CpuLinear(weight, in_place && weight.size(0) % kPanel == 0));
}

std::shared_ptr<const CpuLinear> CpuLinear::AsStored(
    const torch::Tensor& weight) {
  if (!weight.is_cpu() || weight.scalar_type() != torch::kBFloat16 ||
      weight.size(1) % 16 != 0 || !Avx512Supported())
    return nullptr;
  const std::shared_ptr<CpuLinear> out(new CpuLinear);
  out->out_ = weight.size(0);
  out->in_ = weight.size(1);
  out->stored_ = weight;
  return out;
}

CpuLinear::CpuLinear(const torch::Tensor& weight, bool in_place)
    : out_(weight.size(0)), in_(weight.size(1)) {
  const std::vector<int64_t> shape = {PadToPanel(out_) / kPanel, in_, kPanel};
  panels_ =
      in_place ? weight.view(shape) : torch::empty(shape, torch::kBFloat16);
  const uint16_t* const from = Bits(weight);
  uint16_t* const to = MutableBits(panels_);
  at::parallel_for(0, shape[0], 1, [&](int64_t begin, int64_t end) {
    std::vector<uint16_t> rows(in_place ? in_ * kPanel : 0);
    for (int64_t j = begin; j < end; ++j) {
      const uint16_t* source = from + j * kPanel * in_;
      if (in_place) {
        std::copy_n(source, rows.size(), rows.begin());
        source = rows.data();
      }
      PackBf16Panel(in_, std::min(kPanel, out_ - j * kPanel), source,
                    to + j * kPanel * in_);
    }
  });
}

void CpuLinear::Restore(const torch::Tensor& weight) const {
  if (stored_.defined() || weight.data_ptr() != panels_.data_ptr()) return;
  uint16_t* const bits = MutableBits(weight);
  at::parallel_for(0, panels_.size(0), 1, [&](int64_t begin, int64_t end) {
    std::vector<uint16_t> panel(in_ * kPanel);
    for (int64_t j = begin; j < end; ++j) {
      uint16_t* const rows = bits + j * kPanel * in_;
      std::copy_n(rows, panel.size(), panel.begin());
      for (int64_t c = 0; c < kPanel; ++c)
        for (int64_t p = 0; p < in_; ++p)
          rows[c * in_ + p] = panel[p * kPanel + c];
    }
  });
}

void CpuLinear::Run(const torch::Tensor& x, uint16_t* out,
                    float* out_float) const {
  const torch::Tensor rows = x.contiguous();
  const uint16_t* const from = Bits(rows);
  const uint16_t* const panels = Bits(panels_);
  const int64_t m = rows.size(0), block = Bf16BlockRows(in_);
  const int64_t row_blocks = (m + block - 1) / block;
  // Threads share the rows; where these are few, the columns too.
  const int64_t threads = at::get_num_threads();
  const int64_t group =
      row_blocks >= 2 * threads
          ? out_
          : std::clamp((out_ / threads + 31) / 32 * 32, int64_t{32}, kGroup);
  const int64_t groups = (out_ + group - 1) / group;
  at::parallel_for(0, row_blocks * groups, 1, [&](int64_t begin, int64_t end) {
    thread_local FloatBuffer scratch;
    scratch.resize(std::max<size_t>(scratch.size(), Bf16Scratch(in_)));
    for (int64_t t = begin; t < end; ++t) {
      const int64_t i = t / groups * block, j = t % groups * group;
      const int64_t at = i * out_ + j;
      GemmBf16Avx512(std::min(block, m - i), in_, std::min(group, out_ - j),
                     from + i * in_, panels + j * in_, out_,
                     out != nullptr ? out + at : nullptr,
                     out_float != nullptr ? out_float + at : nullptr,
                     scratch.data());
    }
  });
}

torch::Tensor CpuLinear::ApplyFloat(const torch::Tensor& x) const {
  const torch::Tensor y =
      torch::empty({x.size(0), out_}, x.options().dtype(torch::kFloat32));
  Run(x, nullptr, y.data_ptr<float>());
  return y;
}

torch::Tensor CpuLinear::ApplyStored(const torch::Tensor& x) const {
  const int64_t rows = x.size(0);
  if (rows > kDotRows) return torch::mm(x, stored_.t());
  const torch::Tensor wide = x.to(torch::kFloat32).contiguous();
  const torch::Tensor y = torch::empty({rows, out_}, x.options());
  at::parallel_for(0, out_, kGroup / 16, [&](int64_t begin, int64_t end) {
    DotRows(rows, in_, end - begin, wide.data_ptr<float>(),
            Bits(stored_) + begin * in_, out_, MutableBits(y) + begin);
  });
  return y;
}

torch::Tensor CpuLinear::Apply(const torch::Tensor& x) const {
  if (stored_.defined()) return ApplyStored(x);
  const torch::Tensor y = torch::empty({x.size(0), out_}, x.options());
  Run(x, MutableBits(y), nullptr);
  return y;
}

}  // namespace atod::model
