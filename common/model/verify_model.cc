#include "common/model/verify_model.h"

#include <filesystem>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/manifest.h"
#include "common/checkpoint/safetensors.h"
#include "common/model/model_config.h"
#include "common/model/model_folder.h"

namespace atod::model {
namespace {

namespace fs = std::filesystem;

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
    report_.has_tokenizer = fs::exists(dir_ + "/tokenizer.json");
    const auto config = ReadModelConfig(dir_);
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
    if (!status.ok()) report_.faults.emplace_back(status.message());
  }

  void AddTensor(const SafetensorsDir& files, const TensorView& tensor) {
    const std::string_view bytes(
        reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
    report_.tensors.push_back({.name = tensor.name,
                               .dtype = tensor.dtype,
                               .shape = tensor.shape,
                               .bytes = bytes.size(),
                               .hash = HashHex(bytes)});
    Fault(CheckFinite(tensor, files.PathOf(tensor.name)));
    files.Release(tensor);
  }

  void CheckTensors(const ModelConfig& config) {
    const auto files = OpenSafetensorsDir(dir_);
    if (!files.ok()) return Fault(files.status());
    for (const absl::Status& fault : TensorFaults(config, **files)) {
      Fault(fault);
    }
    std::map<std::string, const TensorView*> left;
    for (const TensorView& tensor : (*files)->tensors()) {
      left[tensor.name] = &tensor;
    }
    for (const ParameterSpec& spec : ParameterSpecs(config)) {
      const auto it = left.find(spec.name);
      if (it == left.end()) continue;
      AddTensor(**files, *it->second);
      left.erase(it);
    }
    for (const auto& [name, tensor] : left) AddTensor(**files, *tensor);
  }

  void CheckTokenizer(const ModelConfig& config) {
    const auto tokenizer = OpenTokenizer(config, dir_);
    if (!tokenizer.ok()) return Fault(tokenizer.status());
    const auto stop = StopTokens(dir_);
    if (!stop.ok()) return Fault(stop.status());
    report_.stop_tokens = *stop;
    if (*tokenizer == nullptr) return;
    report_.padding_rows = config.vocab_size - (*tokenizer)->vocab_size();
    for (const int32_t id : *stop) {
      report_.stop_texts.push_back((*tokenizer)->Decode({id}));
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

}  // namespace atod::model
