#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors.h"
#include "common/model/model.h"
#include "common/model/torch_status.h"

namespace atod::model {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("shape [", absl::StrJoin(shape, ","), "]");
}

absl::StatusOr<torch::Dtype> TensorDtype(const TensorView& t,
                                         const std::string& file) {
  if (t.dtype == "F32") return torch::kFloat32;
  if (t.dtype == "BF16") return torch::kBFloat16;
  if (t.dtype == "F16") return torch::kFloat16;
  return BadInput(
      {file, t.name, 0, absl::StrCat("dtype ", t.dtype), "F32, BF16 or F16"});
}

}  // namespace

absl::StatusOr<Qwen3> LoadModel(const std::string& dir,
                                const std::string& dtype) {
  ATOD_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(dir));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsDir> files,
                        OpenSafetensorsDir(dir));
  const std::string where = dir + "/model.safetensors";
  const std::vector<ParameterSpec> specs = ParameterSpecs(config);
  absl::flat_hash_set<std::string> known;
  for (const ParameterSpec& spec : specs) {
    const TensorView* t = files->Find(spec.name);
    if (t == nullptr)
      return BadInput(
          {where, spec.name, 0, "no such tensor", ShapeText(spec.shape)});
    if (t->shape != spec.shape)
      return BadInput(
          {where, spec.name, 0, ShapeText(t->shape), ShapeText(spec.shape)});
    ATOD_RETURN_IF_ERROR(TensorDtype(*t, where).status());
    known.insert(spec.name);
  }
  for (const TensorView& t : files->tensors()) {
    // Some writers store the tied head again.
    if (known.contains(t.name) ||
        (config.tie_word_embeddings && t.name == "lm_head.weight"))
      continue;
    return BadInput({where, t.name, 0, ShapeText(t.shape),
                     "no such tensor in this architecture"});
  }
  std::string wanted = dtype;
  if (wanted.empty())
    wanted =
        files->Find(specs[0].name)->dtype == "BF16" ? "bfloat16" : "float32";
  ATOD_ASSIGN_OR_RETURN(const torch::Dtype type, ParseDtype(wanted));
  return CatchTorch(where, [&]() -> absl::StatusOr<Qwen3> {
    torch::NoGradGuard no_grad;
    Qwen3 model(config);
    model->to(type);
    const std::vector<torch::Tensor> parameters = model->OrderedParameters();
    for (size_t i = 0; i < specs.size(); ++i) {
      const TensorView& t = *files->Find(specs[i].name);
      // from_blob wants a mutable pointer; copy_ only reads it.
      parameters[i].copy_(
          torch::from_blob(const_cast<std::byte*>(t.data.data()), t.shape,
                           TensorDtype(t, where).value()));
    }
    return model;
  });
}

absl::Status SaveModel(Qwen3& model, const std::string& dir,
                       const std::string& dtype) {
  ATOD_ASSIGN_OR_RETURN(const torch::Dtype type, ParseDtype(dtype));
  ATOD_RETURN_IF_ERROR(MakeDirs(dir));
  return CatchTorch(dir, [&]() -> absl::Status {
    torch::NoGradGuard no_grad;
    const std::vector<ParameterSpec> specs = ParameterSpecs(model->config());
    const std::vector<torch::Tensor> parameters = model->OrderedParameters();
    std::vector<torch::Tensor> converted;  // owns what the views show
    std::vector<TensorView> views;
    for (size_t i = 0; i < specs.size(); ++i) {
      converted.push_back(parameters[i].to(torch::kCPU, type).contiguous());
      const torch::Tensor& t = converted.back();
      views.push_back(
          {specs[i].name, type == torch::kFloat32 ? "F32" : "BF16",
           specs[i].shape,
           absl::MakeConstSpan(static_cast<const std::byte*>(t.data_ptr()),
                               t.nbytes())});
    }
    ATOD_RETURN_IF_ERROR(WriteSafetensors(dir + "/model.safetensors", views,
                                          {{"format", "pt"}}));
    return WriteFileAtomic(dir + "/config.json",
                           ModelConfigJson(model->config(), dtype));
  });
}

}  // namespace atod::model
