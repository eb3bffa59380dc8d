#include "common/model/weights_io.h"

#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/model/torch_status.h"

namespace atod::model {
namespace {

using weights::TensorEntry;
using weights::WeightSnapshot;

}  // namespace

absl::StatusOr<WeightSnapshot> ExportWeights(Qwen3& model,
                                             const std::string& dtype) {
  ATOD_ASSIGN_OR_RETURN(const torch::Dtype type, ParseDtype(dtype));
  return CatchTorch("weights", [&]() -> absl::StatusOr<WeightSnapshot> {
    torch::NoGradGuard no_grad;
    WeightSnapshot snapshot;
    const std::vector<ParameterSpec> specs = ParameterSpecs(model->config());
    const std::vector<torch::Tensor> parameters = model->OrderedParameters();
    for (size_t i = 0; i < specs.size(); ++i) {
      const torch::Tensor t = parameters[i].to(torch::kCPU, type).contiguous();
      const std::string_view bytes(static_cast<const char*>(t.data_ptr()),
                                   t.nbytes());
      snapshot.tensors.push_back(
          {specs[i].name, type == torch::kFloat32 ? "F32" : "BF16",
           specs[i].shape, bytes.size(), snapshot.data.size(),
           weights::TensorChecksum(bytes)});
      snapshot.data.append(bytes);
    }
    snapshot.root_hash = weights::ComputeRootHash(snapshot.tensors);
    return snapshot;
  });
}

absl::Status ImportWeights(Qwen3& model, const WeightSnapshot& snapshot) {
  ATOD_RETURN_IF_ERROR(weights::VerifySnapshot(snapshot));
  absl::flat_hash_map<std::string_view, const TensorEntry*> by_name;
  for (const TensorEntry& t : snapshot.tensors) by_name[t.name] = &t;
  const std::vector<ParameterSpec> specs = ParameterSpecs(model->config());
  if (by_name.size() != specs.size())
    return absl::InvalidArgumentError(
        absl::StrCat("weight stream: found ", by_name.size(),
                     " tensors, expected ", specs.size()));
  for (const ParameterSpec& spec : specs) {
    const auto it = by_name.find(spec.name);
    if (it == by_name.end())
      return absl::InvalidArgumentError(
          absl::StrCat("weight stream: ", spec.name, ": found no such tensor"));
    const TensorEntry& t = *it->second;
    uint64_t bytes = t.dtype == "F32" ? 4 : 2;
    for (const int64_t n : t.shape) bytes *= n;
    if (t.dtype != "F32" && t.dtype != "BF16")
      return absl::InvalidArgumentError(absl::StrCat("weight stream: ", t.name,
                                                     ": found dtype ", t.dtype,
                                                     ", expected F32 or BF16"));
    if (t.shape != spec.shape || t.bytes != bytes)
      return absl::InvalidArgumentError(absl::StrCat(
          "weight stream: ", t.name, ": found shape [",
          absl::StrJoin(t.shape, ","), "] and ", t.bytes,
          " bytes, expected shape [", absl::StrJoin(spec.shape, ","), "]"));
  }
  return CatchTorch("weights", [&]() -> absl::Status {
    torch::NoGradGuard no_grad;
    std::vector<torch::Tensor> parameters = model->OrderedParameters();
    for (size_t i = 0; i < specs.size(); ++i) {
      const TensorEntry& t = *by_name[specs[i].name];
      // from_blob wants a mutable pointer; copy_ only reads it.
      parameters[i].copy_(torch::from_blob(
          const_cast<char*>(snapshot.data.data()) + t.offset, t.shape,
          t.dtype == "F32" ? torch::kFloat32 : torch::kBFloat16));
    }
    return absl::OkStatus();
  });
}

}  // namespace atod::model
