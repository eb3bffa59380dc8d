#include "common/model/arena.h"

#include <algorithm>

#include "torch/utils.h"

namespace atod::model {
namespace {

int64_t Elements(const ParameterSpec& spec) {
  int64_t n = 1;
  for (const int64_t d : spec.shape) n *= d;
  return n;
}

}  // namespace

ParameterArena::ParameterArena(const ModelConfig& config, torch::Dtype dtype,
                               torch::Device device, bool with_gradients)
    : specs_(ParameterSpecs(config)), offsets_{0} {
  for (const ParameterSpec& spec : specs_)
    offsets_.push_back(offsets_.back() + Elements(spec));
  const int64_t padded =
      (num_parameters() + kPadding - 1) / kPadding * kPadding;
  const auto options = torch::TensorOptions().device(device);
  values = torch::zeros({padded}, options.dtype(dtype));
  if (!with_gradients) return;
  masters = dtype == torch::kFloat32
                ? values
                : torch::zeros({padded}, options.dtype(torch::kFloat32));
  gradients = torch::zeros({padded}, options.dtype(torch::kFloat32));
}

size_t ParameterArena::Find(const std::string& name) const {
  return std::find_if(
             specs_.begin(), specs_.end(),
             [&](const ParameterSpec& spec) { return spec.name == name; }) -
         specs_.begin();
}

torch::Tensor ParameterArena::View(const torch::Tensor& flat, size_t i) const {
  return flat.narrow(0, offsets_[i], offsets_[i + 1] - offsets_[i])
      .view(specs_[i].shape);
}

torch::Tensor ParameterArena::Fused(const torch::Tensor& flat, size_t i,
                                    size_t count) const {
  return flat.narrow(0, offsets_[i], offsets_[i + count] - offsets_[i])
      .view({-1, specs_[i].shape[1]});
}

}  // namespace atod::model
