#include "services/cli/verify_model.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/manifest.h"
#include "common/checkpoint/safetensors.h"
#include "common/model/model_config.h"
#include "common/tokenizer/tokenizer.h"

namespace atod::cli {
namespace {

namespace fs = std::filesystem;

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Counts NaN and infinity, whose exponent bits are all ones.
template <typename Bits>
uint64_t CountNotFinite(const TensorView& tensor, Bits exponent) {
  uint64_t count = 0;
  for (size_t i = 0; i + sizeof(Bits) <= tensor.data.size();
       i += sizeof(Bits)) {
    Bits bits;
    std::memcpy(&bits, tensor.data.data() + i, sizeof(Bits));
    count += (bits & exponent) == exponent ? 1 : 0;
  }
  return count;
}

class Verifier {
 public:
  // The manifest lies in `root`, the model in it or in its folder "model".
  explicit Verifier(const std::string& root) : root_(root), dir_(root) {
    const fs::path inner = fs::path(root) / "model";
    if (!fs::exists(fs::path(root) / "config.json") &&
        fs::is_directory(inner)) {
      dir_ = inner.string();
    }
  }

  ModelReport Run() {
    const auto config = model::ReadModelConfig(dir_);
    if (!config.ok()) {
      Fault(config.status());
    } else {
      CheckTensors(*config);
      CheckTokenizer(*config);
    }
    CheckManifest();
    return std::move(report_);
  }

 private:
  void Fault(const absl::Status& status) {
    report_.faults.emplace_back(status.message());
  }
  void Fault(const std::string& field, const std::string& found,
             const std::string& expected) {
    Fault(BadInput(
        {.file = dir_, .field = field, .found = found, .expected = expected}));
  }

  void AddTensor(const TensorView& tensor) {
    const std::string_view bytes(
        reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
    report_.tensors.push_back({.name = tensor.name,
                               .dtype = tensor.dtype,
                               .shape = tensor.shape,
                               .bytes = bytes.size(),
                               .hash = HashHex(bytes)});
    uint64_t not_finite = 0;
    if (tensor.dtype == "F32") {
      not_finite = CountNotFinite<uint32_t>(tensor, 0x7F800000);
    } else if (tensor.dtype == "BF16") {
      not_finite = CountNotFinite<uint16_t>(tensor, 0x7F80);
    } else if (tensor.dtype == "F16") {
      not_finite = CountNotFinite<uint16_t>(tensor, 0x7C00);
    } else {
      Fault(tensor.name, absl::StrCat("dtype ", tensor.dtype),
            "F32, BF16 or F16");
    }
    if (not_finite > 0) {
      Fault(tensor.name,
            absl::StrCat(not_finite, " values that are NaN or infinite"),
            "none");
    }
  }

  void CheckTensors(const model::ModelConfig& config) {
    const auto files = OpenSafetensorsDir(dir_);
    if (!files.ok()) return Fault(files.status());
    std::map<std::string, const TensorView*> left;
    for (const TensorView& tensor : (*files)->tensors()) {
      left[tensor.name] = &tensor;
    }
    for (const model::ParameterSpec& spec : model::ParameterSpecs(config)) {
      const auto it = left.find(spec.name);
      if (it == left.end()) {
        Fault(spec.name, "no such tensor", ShapeText(spec.shape));
        continue;
      }
      AddTensor(*it->second);
      if (it->second->shape != spec.shape) {
        Fault(spec.name, ShapeText(it->second->shape), ShapeText(spec.shape));
      }
      left.erase(it);
    }
    for (const auto& [name, tensor] : left) {
      AddTensor(*tensor);
      // Some writers store the tied head again.
      if (config.tie_word_embeddings && name == "lm_head.weight") continue;
      Fault(name, ShapeText(tensor->shape),
            "no such tensor in this architecture");
    }
  }

  void CheckTokenizer(const model::ModelConfig& config) {
    if (!fs::exists(fs::path(dir_) / "tokenizer.json")) return;
    const auto tokenizer = Tokenizer::Load(dir_);
    if (!tokenizer.ok()) return Fault(tokenizer.status());
    if ((*tokenizer)->vocab_size() > config.vocab_size) {
      Fault("tokenizer.json",
            absl::StrCat((*tokenizer)->vocab_size(), " tokens"),
            absl::StrCat("at most ", config.vocab_size,
                         ", vocab_size of config.json"));
    }
  }

  void CheckManifest() {
    const auto manifest = ReadManifest(root_);
    if (absl::IsNotFound(manifest.status())) return;
    report_.has_manifest = true;
    if (!manifest.ok()) return Fault(manifest.status());
    report_.manifest_files = manifest->files.size();
    for (const Problem& problem : ManifestFaults(root_, *manifest)) {
      Fault(BadInput(problem));
    }
  }

  const std::string root_;
  std::string dir_;
  ModelReport report_;
};

}  // namespace

absl::StatusOr<ModelReport> VerifyModel(const std::string& dir) {
  if (!fs::is_directory(dir)) {
    return absl::NotFoundError(absl::StrCat(dir,
                                            ": found no such folder, "
                                            "expected a model folder"));
  }
  return Verifier(dir).Run();
}

}  // namespace atod::cli
