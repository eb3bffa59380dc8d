#include "common/model/model_folder.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::model {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr size_t kMostFaults = 20;  // named in one error

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("shape [", absl::StrJoin(shape, ","), "]");
}

// eos_token_id of one file, when there is such a file.
absl::Status AddEosIds(const std::string& path, int64_t vocab_size,
                       std::set<int32_t>& ids) {
  if (!fs::exists(path)) return absl::OkStatus();
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  ATOD_ASSIGN_OR_RETURN(const Json json, ParseJson(text, path));
  const Json eos =
      json.is_object() ? json.value("eos_token_id", Json()) : Json();
  for (const Json& id : eos.is_array() ? eos : Json::array({eos})) {
    if (id.is_null()) continue;
    if (!id.is_number_integer() || id < 0 || id >= vocab_size)
      return BadInput({path, "eos_token_id", 0, JsonPreview(id),
                       absl::StrCat("a token id, 0 to ", vocab_size - 1)});
    ids.insert(id.get<int32_t>());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> StopTokensOf(const std::string& dir,
                                                  int64_t vocab_size,
                                                  const Tokenizer* tokenizer) {
  std::set<int32_t> ids;
  for (const char* name : {"/config.json", "/generation_config.json"})
    ATOD_RETURN_IF_ERROR(AddEosIds(dir + name, vocab_size, ids));
  if (tokenizer != nullptr) {
    ids.insert(tokenizer->eos_ids().begin(), tokenizer->eos_ids().end());
    if (ids.empty() && tokenizer->eos_id().has_value())
      ids.insert(*tokenizer->eos_id());
  }
  return std::vector<int32_t>(ids.begin(), ids.end());
}

// Counts NaN and infinity, whose exponent bits are all ones, in blocks of a
// length that the compiler knows, so that it uses vectors.
template <typename Bits>
uint64_t CountNotFinite(const TensorView& tensor, Bits exponent) {
  constexpr size_t kBlock = 1024;
  Bits block[kBlock] = {};
  uint64_t count = 0;
  for (size_t i = 0; i < tensor.data.size(); i += sizeof(block)) {
    const size_t bytes = std::min(sizeof(block), tensor.data.size() - i);
    if (bytes < sizeof(block)) std::fill_n(block, kBlock, Bits{0});
    std::memcpy(block, tensor.data.data() + i, bytes);
    Bits in_block = 0;
    for (const Bits bits : block)
      in_block += (bits & exponent) == exponent ? 1 : 0;
    count += in_block;
  }
  return count;
}

bool IsWeights(const std::string& name) {
  return name.starts_with("model.safetensors") ||
         (name.starts_with("model-") && name.ends_with(".safetensors")) ||
         (name.starts_with("pytorch_model") &&
          (name.ends_with(".bin") || name.ends_with(".bin.index.json")));
}

// What transformers reads beside the weights.
bool IsModelFile(const std::string& name) {
  static const std::set<std::string> kNames = {"additional_chat_templates",
                                               "added_tokens.json",
                                               "chat_template.jinja",
                                               "chat_template.json",
                                               "config.json",
                                               "generation_config.json",
                                               "MANIFEST.json",
                                               "merges.txt",
                                               "special_tokens_map.json",
                                               "tokenizer.json",
                                               "tokenizer.model",
                                               "tokenizer_config.json",
                                               "vocab.json"};
  return IsWeights(name) || kNames.contains(name);
}

// Where a model comes from, and of no effect.
bool IsCard(const std::string& name) {
  return name == "README.md" || name.starts_with("LICENSE") ||
         name == ".gitattributes" || name == ".cache";
}

absl::StatusOr<std::vector<std::string>> Names(const std::string& dir) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end;
       it.increment(error))
    names.push_back(it->path().filename().string());
  if (error)
    return absl::NotFoundError(absl::StrCat(dir, ": ", error.message()));
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status Remove(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return error ? absl::InternalError(absl::StrCat(
                     path, ": cannot remove it: ", error.message()))
               : absl::OkStatus();
}

}  // namespace

absl::Status CheckModelTarget(const std::string& from, const std::string& to) {
  if (!fs::exists(to)) return absl::OkStatus();
  ATOD_ASSIGN_OR_RETURN(const std::vector<std::string> names, Names(to));
  for (const std::string& name : names)
    if (!IsModelFile(name) && !IsCard(name) &&
        (from.empty() || !fs::exists(fs::path(from) / name)))
      return BadInput({to, name, 0, "something that is no part of a model",
                       "a folder that is new, empty or a model's"});
  return absl::OkStatus();
}

absl::Status CopyTokenizerFiles(const std::string& from,
                                const std::string& to) {
  ATOD_RETURN_IF_ERROR(MakeDirs(to));
  std::error_code error;
  const bool same = fs::equivalent(from, to, error);
  ATOD_ASSIGN_OR_RETURN(const std::vector<std::string> names, Names(from));
  std::set<std::string> kept = {"config.json"};
  for (const std::string& name : names) {
    const fs::path path = fs::path(from) / name;
    const fs::path target = fs::path(to) / name;
    if (IsWeights(name) || name == "config.json" || name == "MANIFEST.json")
      continue;
    if (name == "additional_chat_templates" && fs::is_directory(path)) {
      kept.insert(name);
      if (same) continue;
      ATOD_RETURN_IF_ERROR(Remove(target.string()));
      fs::copy(path, target, fs::copy_options::recursive, error);
      if (error)
        return absl::InternalError(absl::StrCat(
            target.string(), ": cannot be copied: ", error.message()));
    }
    if (!fs::is_regular_file(path, error)) continue;
    kept.insert(name);
    if (same) continue;
    ATOD_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path.string()));
    ATOD_RETURN_IF_ERROR(WriteFileAtomic(target.string(), bytes));
  }
  ATOD_ASSIGN_OR_RETURN(const std::vector<std::string> written, Names(to));
  for (const std::string& name : written)
    if (IsModelFile(name) && !IsWeights(name) && !kept.contains(name))
      ATOD_RETURN_IF_ERROR(Remove(to + "/" + name));
  return absl::OkStatus();
}

absl::Status RemoveOtherWeights(const std::string& dir) {
  ATOD_ASSIGN_OR_RETURN(const std::vector<std::string> names, Names(dir));
  for (const std::string& name : names)
    if (IsWeights(name) && name != "model.safetensors")
      ATOD_RETURN_IF_ERROR(Remove(dir + "/" + name));
  return absl::OkStatus();
}

absl::StatusOr<ModelFolder> CheckModelFolder(const std::string& dir,
                                             int64_t max_context) {
  if (!fs::is_directory(dir))
    return absl::NotFoundError(absl::StrCat(
        dir,
        ": found no such folder, expected a model folder with config.json, "
        "*.safetensors and tokenizer.json (one of the Hugging Face hub: hf "
        "download ORGANISATION/NAME --local-dir ",
        dir, ")"));
  ModelFolder folder;
  ATOD_ASSIGN_OR_RETURN(folder.config, ReadModelConfig(dir));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsDir> files,
                        OpenSafetensorsDir(dir));
  const std::vector<absl::Status> faults = TensorFaults(folder.config, *files);
  if (!faults.empty()) return faults[0];
  ATOD_ASSIGN_OR_RETURN(folder.tokenizer, OpenTokenizer(folder.config, dir));
  if (folder.tokenizer == nullptr)
    return absl::NotFoundError(
        absl::StrCat(dir, "/tokenizer.json: found no such file"));
  ATOD_ASSIGN_OR_RETURN(folder.stop_tokens, StopTokens(dir, *folder.tokenizer));
  if (max_context > 0)
    ATOD_RETURN_IF_ERROR(CheckPositions(folder.config, dir, max_context));
  return folder;
}

absl::StatusOr<std::vector<int32_t>> StopTokens(const std::string& model_dir,
                                                const Tokenizer& tokenizer) {
  return StopTokensOf(model_dir, tokenizer.vocab_size(), &tokenizer);
}

absl::StatusOr<std::vector<int32_t>> StopTokens(const std::string& model_dir) {
  ATOD_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(model_dir));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        OpenTokenizer(config, model_dir));
  return StopTokensOf(
      model_dir,
      tokenizer != nullptr ? tokenizer->vocab_size() : config.vocab_size,
      tokenizer.get());
}

absl::Status CheckPositions(const ModelConfig& config, const std::string& dir,
                            int64_t max_context) {
  if (max_context <= config.max_position_embeddings) return absl::OkStatus();
  return BadInput(
      {dir + "/config.json", "max_position_embeddings", 0,
       absl::StrCat(config.max_position_embeddings),
       absl::StrCat("at least ", max_context,
                    ", the context asked for (model.max_context)")});
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(
    const ModelConfig& config, const std::string& dir) {
  const std::string path = dir + "/tokenizer.json";
  if (!fs::exists(path)) return nullptr;
  ATOD_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer,
                        Tokenizer::Load(dir));
  if (tokenizer->vocab_size() > config.vocab_size)
    return BadInput({path, "vocabulary", 0,
                     absl::StrCat(tokenizer->vocab_size(), " tokens"),
                     absl::StrCat("at most ", config.vocab_size,
                                  ", vocab_size of config.json")});
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id)
    if (!tokenizer->HasToken(id))
      return BadInput({path, "vocabulary", 0, absl::StrCat("no token ", id),
                       absl::StrCat("a token for every id below ",
                                    tokenizer->vocab_size())});
  return tokenizer;
}

std::vector<absl::Status> TensorFaults(const ModelConfig& config,
                                       const SafetensorsDir& files) {
  std::vector<absl::Status> faults;
  const auto fault = [&](const std::string& name, std::string found,
                         std::string expected) {
    faults.push_back(BadInput(
        {files.PathOf(name), name, 0, std::move(found), std::move(expected)}));
  };
  std::vector<ParameterSpec> specs = ParameterSpecs(config);
  std::set<std::string> known;
  const auto check = [&](const ParameterSpec& spec, const TensorView& t) {
    known.insert(spec.name);
    if (t.shape != spec.shape)
      fault(spec.name, ShapeText(t.shape), ShapeText(spec.shape));
    if (t.dtype != "F32" && t.dtype != "BF16" && t.dtype != "F16")
      fault(spec.name, absl::StrCat("dtype ", t.dtype), "F32, BF16 or F16");
  };
  for (const ParameterSpec& spec : specs) {
    const TensorView* t = files.Find(spec.name);
    if (t == nullptr)
      fault(spec.name, "no such tensor", ShapeText(spec.shape));
    else
      check(spec, *t);
  }
  // Some writers store the tied head again.
  const TensorView* head = files.Find("lm_head.weight");
  const TensorView* embedding = files.Find("model.embed_tokens.weight");
  if (config.tie_word_embeddings && head != nullptr && embedding != nullptr) {
    check({"lm_head.weight", {config.vocab_size, config.hidden_size}}, *head);
    if (head->dtype != embedding->dtype ||
        head->data.size() != embedding->data.size() ||
        std::memcmp(head->data.data(), embedding->data.data(),
                    head->data.size()) != 0)
      fault("lm_head.weight", "another tensor than model.embed_tokens.weight",
            "an equal copy or none, for config.json says "
            "tie_word_embeddings: true");
  }
  for (const TensorView& t : files.tensors())
    if (!known.contains(t.name))
      fault(t.name, ShapeText(t.shape), "no such tensor in this architecture");
  return faults;
}

absl::Status CheckTensors(const ModelConfig& config,
                          const SafetensorsDir& files) {
  const std::vector<absl::Status> faults = TensorFaults(config, files);
  if (faults.empty()) return absl::OkStatus();
  std::vector<std::string> lines;
  for (const absl::Status& fault : faults)
    if (lines.size() < kMostFaults) lines.emplace_back(fault.message());
  std::string text = absl::StrJoin(lines, "; ");
  if (faults.size() > lines.size())
    absl::StrAppend(&text, "; and ", faults.size() - lines.size(), " more");
  return absl::InvalidArgumentError(text);
}

absl::Status CheckFinite(const TensorView& tensor, const std::string& file) {
  uint64_t count = 0;
  if (tensor.dtype == "F32")
    count = CountNotFinite<uint32_t>(tensor, 0x7F800000);
  else if (tensor.dtype == "BF16")
    count = CountNotFinite<uint16_t>(tensor, 0x7F80);
  else if (tensor.dtype == "F16")
    count = CountNotFinite<uint16_t>(tensor, 0x7C00);
  if (count == 0) return absl::OkStatus();
  return BadInput({file, tensor.name, 0,
                   absl::StrCat(count, " values that are NaN or infinite"),
                   "none"});
}

}  // namespace atod::model
