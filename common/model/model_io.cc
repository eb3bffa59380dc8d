#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/ops/cat.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors.h"
#include "common/model/model.h"
#include "common/model/model_folder.h"
#include "common/model/torch_status.h"

namespace atod::model {
namespace {

// Of a tensor that TensorFaults let pass.
torch::Dtype TensorDtype(const TensorView& t) {
  return t.dtype == "F32"    ? torch::kFloat32
         : t.dtype == "BF16" ? torch::kBFloat16
                             : torch::kFloat16;
}

// A contiguous float32 or bfloat16 tensor on the CPU; not owned.
TensorView ViewOf(const ParameterSpec& spec, const torch::Tensor& t) {
  return {spec.name, t.scalar_type() == torch::kFloat32 ? "F32" : "BF16",
          spec.shape,
          absl::MakeConstSpan(static_cast<const std::byte*>(t.data_ptr()),
                              t.nbytes())};
}

bool IsVocabulary(const ParameterSpec& spec) {
  return spec.name == "model.embed_tokens.weight" ||
         spec.name == "lm_head.weight";
}

}  // namespace

absl::StatusOr<Qwen3> LoadModel(const std::string& dir,
                                const std::string& dtype) {
  ATOD_ASSIGN_OR_RETURN(ModelConfig config, ReadModelConfig(dir));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsDir> files,
                        OpenSafetensorsDir(dir));
  const std::vector<absl::Status> faults = TensorFaults(config, *files, dir);
  if (!faults.empty()) return faults[0];
  const std::string where = dir + "/model.safetensors";
  for (const TensorView& t : files->tensors())
    ATOD_RETURN_IF_ERROR(CheckFinite(t, where));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        OpenTokenizer(config, dir));
  if (tokenizer != nullptr) {
    config.padding_rows = config.vocab_size - tokenizer->vocab_size();
    config.vocab_size = tokenizer->vocab_size();
  }
  const std::vector<ParameterSpec> specs = ParameterSpecs(config);
  std::string wanted = dtype;
  if (wanted.empty())
    wanted =
        files->Find(specs[0].name)->dtype == "BF16" ? "bfloat16" : "float32";
  ATOD_ASSIGN_OR_RETURN(const torch::Dtype type, ParseDtype(wanted));
  return CatchTorch(where, [&]() -> absl::StatusOr<Qwen3> {
    torch::NoGradGuard no_grad;
    Qwen3 model(config);
    model->to(type);
    Qwen3Impl::Padding padding;
    const std::vector<torch::Tensor> parameters = model->OrderedParameters();
    for (size_t i = 0; i < specs.size(); ++i) {
      const TensorView& t = *files->Find(specs[i].name);
      // from_blob wants a mutable pointer; copy_ only reads it.
      const torch::Tensor whole = torch::from_blob(
          const_cast<std::byte*>(t.data.data()), t.shape, TensorDtype(t));
      const int64_t rows = specs[i].shape[0];
      parameters[i].copy_(whole.narrow(0, 0, rows));
      if (config.padding_rows > 0 && IsVocabulary(specs[i]))
        (i == 0 ? padding.embedding : padding.head) =
            whole.narrow(0, rows, config.padding_rows).clone();
      // A number of float32 may be too large for bfloat16.
      if (TensorDtype(t) != type)
        ATOD_RETURN_IF_ERROR(
            CheckFinite(ViewOf(specs[i], parameters[i].contiguous()), where));
    }
    model->set_padding(std::move(padding));
    return model;
  });
}

absl::Status SaveModel(Qwen3& model, const std::string& dir,
                       const std::string& dtype) {
  ATOD_ASSIGN_OR_RETURN(const torch::Dtype type, ParseDtype(dtype));
  ATOD_RETURN_IF_ERROR(MakeDirs(dir));
  ATOD_RETURN_IF_ERROR(CatchTorch(dir, [&]() -> absl::Status {
    torch::NoGradGuard no_grad;
    ModelConfig written = model->config();
    written.vocab_size += written.padding_rows;
    const std::vector<ParameterSpec> specs = ParameterSpecs(written);
    const std::vector<torch::Tensor> parameters = model->OrderedParameters();
    std::vector<torch::Tensor> converted;  // owns what the views show
    std::vector<TensorView> views;
    for (size_t i = 0; i < specs.size(); ++i) {
      torch::Tensor t = parameters[i].to(torch::kCPU, type);
      if (written.padding_rows > 0 && IsVocabulary(specs[i]))
        t = at::cat(
            {t, (i == 0 ? model->padding().embedding : model->padding().head)
                    .to(type)});
      converted.push_back(t.contiguous());
      views.push_back(ViewOf(specs[i], converted.back()));
      ATOD_RETURN_IF_ERROR(CheckFinite(views.back(), dir));
    }
    ATOD_RETURN_IF_ERROR(WriteSafetensors(dir + "/model.safetensors", views,
                                          {{"format", "pt"}}));
    return WriteFileAtomic(dir + "/config.json",
                           ModelConfigJson(model->config(), dtype));
  }));
  return RemoveOtherWeights(dir);
}

}  // namespace atod::model
