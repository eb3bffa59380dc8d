#include "common/model/weights_io.h"

#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "ATen/ops/cat.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors.h"
#include "common/model/model_folder.h"
#include "common/model/torch_status.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

using Bytes = absl::Span<const std::byte>;
using weights::TensorEntry;
using weights::WeightSnapshot;

torch::Dtype DtypeOf(std::string_view name) {
  return name == "F32"    ? torch::kFloat32
         : name == "BF16" ? torch::kBFloat16
                          : torch::kFloat16;
}

const char* SafetensorsName(torch::Dtype dtype) {
  return dtype == torch::kFloat32 ? "F32" : "BF16";
}

// The tensor of a file or stream, not owned. from_blob wants a mutable
// pointer; the result is only read.
torch::Tensor Borrow(const void* data, const std::vector<int64_t>& shape,
                     torch::Dtype dtype) {
  return torch::from_blob(const_cast<void*>(data), shape, dtype);
}

// A contiguous float32 or bfloat16 tensor on the CPU; not owned.
TensorView ViewOf(const ParameterSpec& spec, const torch::Tensor& t) {
  return {spec.name, SafetensorsName(t.scalar_type()), spec.shape,
          absl::MakeConstSpan(static_cast<const std::byte*>(t.data_ptr()),
                              t.nbytes())};
}

bool IsEmbedding(const ParameterSpec& spec) {
  return spec.name == "model.embed_tokens.weight";
}

bool IsVocabulary(const ParameterSpec& spec) {
  return IsEmbedding(spec) || spec.name == "lm_head.weight";
}

// The config without the rows that have no token.
absl::Status SetPaddingApart(const std::string& dir, ModelConfig& config) {
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        OpenTokenizer(config, dir));
  if (tokenizer == nullptr) return absl::OkStatus();
  config.padding_rows = config.vocab_size - tokenizer->vocab_size();
  config.vocab_size = tokenizer->vocab_size();
  return absl::OkStatus();
}

absl::Status CopyTensor(const TensorView& from, size_t i,
                        const std::string& where, ModelWeights& to) {
  const ParameterSpec& spec = to.arena->specs()[i];
  const torch::Tensor whole =
      Borrow(from.data.data(), from.shape, DtypeOf(from.dtype));
  const torch::Tensor rows = whole.narrow(0, 0, spec.shape[0]);
  const torch::Tensor values = to.arena->View(to.arena->values, i);
  values.copy_(rows);
  if (to.arena->masters.defined() &&
      !to.arena->masters.is_same(to.arena->values))
    to.arena->View(to.arena->masters, i).copy_(rows);
  if (to.config.padding_rows > 0 && IsVocabulary(spec))
    (IsEmbedding(spec) ? to.embedding_padding : to.head_padding) =
        whole.narrow(0, spec.shape[0], to.config.padding_rows).clone();
  // A number of float32 may be too large for bfloat16.
  if (whole.scalar_type() == values.scalar_type()) return absl::OkStatus();
  return CheckFinite(ViewOf(spec, values.to(torch::kCPU)), where);
}

// What is wrong with a stream by names, dtypes and shapes.
absl::Status CheckEntry(const TensorEntry* t, const ParameterSpec& spec) {
  if (t == nullptr)
    return absl::InvalidArgumentError(
        absl::StrCat("weight stream: ", spec.name, ": found no such tensor"));
  if (t->dtype != "F32" && t->dtype != "BF16")
    return absl::InvalidArgumentError(absl::StrCat("weight stream: ", t->name,
                                                   ": found dtype ", t->dtype,
                                                   ", expected F32 or BF16"));
  uint64_t bytes = t->dtype == "F32" ? 4 : 2;
  for (const int64_t n : t->shape) bytes *= n;
  if (t->shape != spec.shape || t->bytes != bytes)
    return absl::InvalidArgumentError(absl::StrCat(
        "weight stream: ", t->name, ": found shape [",
        absl::StrJoin(t->shape, ","), "] and ", t->bytes,
        " bytes, expected shape [", absl::StrJoin(spec.shape, ","), "]"));
  return absl::OkStatus();
}

TensorEntry EntryOf(const ParameterSpec& spec, const torch::Tensor& t,
                    uint64_t offset) {
  const std::string_view bytes(static_cast<const char*>(t.data_ptr()),
                               t.nbytes());
  return {spec.name, SafetensorsName(t.scalar_type()), spec.shape, bytes.size(),
          offset,    weights::TensorChecksum(bytes)};
}

}  // namespace

absl::StatusOr<ModelWeights> LoadWeights(const std::string& dir,
                                         const LoadOptions& options) {
  ModelWeights out;
  ATOD_ASSIGN_OR_RETURN(out.config, ReadModelConfig(dir));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsDir> files,
                        OpenSafetensorsDir(dir));
  ATOD_RETURN_IF_ERROR(CheckTensors(out.config, *files));
  ATOD_RETURN_IF_ERROR(SetPaddingApart(dir, out.config));
  std::string wanted = options.dtype;
  if (wanted.empty())
    wanted = files->Find("model.embed_tokens.weight")->dtype == "BF16"
                 ? "bfloat16"
                 : "float32";
  ATOD_ASSIGN_OR_RETURN(const torch::Dtype type, ParseDtype(wanted));
  return CatchTorch(dir, [&]() -> absl::StatusOr<ModelWeights> {
    torch::NoGradGuard no_grad;
    out.arena = std::make_unique<ParameterArena>(
        out.config, type, options.device, options.gradients);
    for (size_t i = 0; i < out.arena->specs().size(); ++i) {
      const TensorView& t = *files->Find(out.arena->specs()[i].name);
      const std::string& file = files->PathOf(t.name);
      ATOD_RETURN_IF_ERROR(CheckFinite(t, file));
      ATOD_RETURN_IF_ERROR(CopyTensor(t, i, file, out));
      files->Release(t);
    }
    return std::move(out);
  });
}

absl::StatusOr<ModelWeights> InitWeights(const ModelConfig& config,
                                         const std::string& init,
                                         uint64_t seed) {
  if (init != "unit" && init != "hf")
    return absl::InvalidArgumentError(
        absl::StrCat("init: found ", init, ", expected unit or hf"));
  return CatchTorch("init", [&]() -> absl::StatusOr<ModelWeights> {
    torch::NoGradGuard no_grad;
    ModelWeights out;
    out.config = config;
    out.arena = std::make_unique<ParameterArena>(config, torch::kFloat32,
                                                 torch::kCPU, false);
    for (size_t i = 0; i < out.arena->specs().size(); ++i) {
      const auto& [name, shape] = out.arena->specs()[i];
      const torch::Tensor parameter = out.arena->View(out.arena->values, i);
      if (shape.size() == 1) {
        parameter.fill_(1);
        continue;
      }
      // A linear layer's fan-in and the embedding's width are both its columns.
      double std = 0.02;
      if (init == "unit") {
        std = 1 / std::sqrt(static_cast<double>(shape[1]));
        if (name.ends_with("o_proj.weight") ||
            name.ends_with("down_proj.weight"))
          std *= 0.2;
      }
      Rng rng(MixSeed(seed, i));
      float* data = parameter.data_ptr<float>();
      for (int64_t j = 0; j < parameter.numel(); ++j)
        data[j] = static_cast<float>(std * rng.Normal());
    }
    return out;
  });
}

absl::Status SaveWeights(const ModelWeights& w, const std::string& dir,
                         const std::string& dtype) {
  ATOD_ASSIGN_OR_RETURN(const torch::Dtype type, ParseDtype(dtype));
  ATOD_RETURN_IF_ERROR(MakeDirs(dir));
  ATOD_RETURN_IF_ERROR(CatchTorch(dir, [&]() -> absl::Status {
    torch::NoGradGuard no_grad;
    ModelConfig written = w.config;
    written.vocab_size += written.padding_rows;
    const std::vector<ParameterSpec> specs = ParameterSpecs(written);
    const torch::Tensor& flat =
        w.arena->masters.defined() ? w.arena->masters : w.arena->values;
    std::vector<TensorView> views;
    for (const ParameterSpec& spec : specs)
      views.push_back({spec.name, SafetensorsName(type), spec.shape, {}});
    torch::Tensor t;  // one at a time
    const auto bytes = [&](size_t i) -> absl::StatusOr<Bytes> {
      torch::NoGradGuard no_grad;
      t = w.arena->View(flat, i).to(torch::kCPU, type);
      if (written.padding_rows > 0 && IsVocabulary(specs[i]))
        t = at::cat(
            {t, (IsEmbedding(specs[i]) ? w.embedding_padding : w.head_padding)
                    .to(type)});
      t = t.contiguous();
      const TensorView view = ViewOf(specs[i], t);
      ATOD_RETURN_IF_ERROR(CheckFinite(view, dir));
      return view.data;
    };
    ATOD_RETURN_IF_ERROR(WriteSafetensors(
        dir + "/model.safetensors", views, {{"format", "pt"}},
        [&](size_t i) { return CatchTorch(dir, [&] { return bytes(i); }); }));
    return WriteFileAtomic(dir + "/config.json",
                           ModelConfigJson(w.config, dtype));
  }));
  return RemoveOtherWeights(dir);
}

absl::StatusOr<WeightSnapshot> ExportWeights(const ParameterArena& arena,
                                             const std::string& dtype) {
  ATOD_ASSIGN_OR_RETURN(const torch::Dtype type, ParseDtype(dtype));
  return CatchTorch("weights", [&]() -> absl::StatusOr<WeightSnapshot> {
    torch::NoGradGuard no_grad;
    WeightSnapshot snapshot;
    const torch::Tensor& flat =
        type == torch::kFloat32 && arena.masters.defined() ? arena.masters
                                                           : arena.values;
    snapshot.data.reserve(arena.num_parameters() * torch::elementSize(type));
    for (size_t i = 0; i < arena.specs().size(); ++i) {
      const torch::Tensor t = arena.View(flat, i).to(torch::kCPU, type);
      snapshot.tensors.push_back(
          EntryOf(arena.specs()[i], t, snapshot.data.size()));
      snapshot.data.append(static_cast<const char*>(t.data_ptr()), t.nbytes());
    }
    snapshot.root_hash = weights::ComputeRootHash(snapshot.tensors);
    return snapshot;
  });
}

absl::StatusOr<std::string> HashWeights(const ParameterArena& arena) {
  return CatchTorch("weights", [&]() -> absl::StatusOr<std::string> {
    torch::NoGradGuard no_grad;
    std::vector<TensorEntry> entries;
    for (size_t i = 0; i < arena.specs().size(); ++i)
      entries.push_back(EntryOf(
          arena.specs()[i], arena.View(arena.values, i).to(torch::kCPU), 0));
    return weights::ComputeRootHash(entries);
  });
}

absl::Status ImportWeights(ParameterArena& arena,
                           const WeightSnapshot& snapshot) {
  ATOD_RETURN_IF_ERROR(weights::VerifySnapshot(snapshot));
  absl::flat_hash_map<std::string_view, const TensorEntry*> by_name;
  for (const TensorEntry& t : snapshot.tensors) by_name[t.name] = &t;
  if (by_name.size() != arena.specs().size())
    return absl::InvalidArgumentError(
        absl::StrCat("weight stream: found ", by_name.size(),
                     " tensors, expected ", arena.specs().size()));
  std::vector<const TensorEntry*> entries;
  for (const ParameterSpec& spec : arena.specs()) {
    const auto it = by_name.find(spec.name);
    entries.push_back(it == by_name.end() ? nullptr : it->second);
    ATOD_RETURN_IF_ERROR(CheckEntry(entries.back(), spec));
  }
  return CatchTorch("weights", [&]() -> absl::Status {
    torch::NoGradGuard no_grad;
    for (size_t i = 0; i < entries.size(); ++i) {
      const torch::Tensor t =
          Borrow(snapshot.data.data() + entries[i]->offset, entries[i]->shape,
                 DtypeOf(entries[i]->dtype));
      arena.View(arena.values, i).copy_(t);
      if (arena.masters.defined()) arena.View(arena.masters, i).copy_(t);
    }
    return absl::OkStatus();
  });
}

}  // namespace atod::model
