#include "common/model/torch_status.h"

#include "ATen/Context.h"

namespace atod::model {

absl::Status CheckDevice(const std::string& device) {
  if (device == "cpu" || at::hasCUDA()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("device: found ", device,
                   " without a GPU that LibTorch can use, expected a CUDA "
                   "build and a GPU, or device: cpu"));
}

absl::StatusOr<torch::Dtype> ParseDtype(const std::string& dtype) {
  if (dtype == "float32") return torch::kFloat32;
  if (dtype == "bfloat16") return torch::kBFloat16;
  return absl::InvalidArgumentError(
      absl::StrCat("dtype: found ", dtype, ", expected float32 or bfloat16"));
}

std::string DtypeName(torch::Dtype dtype) {
  return dtype == torch::kBFloat16 ? "bfloat16" : "float32";
}

}  // namespace atod::model
