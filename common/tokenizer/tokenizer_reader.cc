// Tokenizer::Load: from tokenizer.json and the files beside it.
#include <filesystem>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/status_macros.h"
#include "common/tokenizer/chat_template.h"
#include "common/tokenizer/tokenizer.h"
#include "common/tokenizer/unicode.h"

namespace atod {

using nlohmann::json;

namespace {

// A byte-level BPE of the largest models has about 300,000 ids; a file with
// ids far beyond its entries would only make us allocate.
constexpr int64_t kMaxId = 4'000'000;

// The bytes that a token in the byte-level alphabet stands for; characters
// outside of it stand for themselves, as in HF's ByteLevel decoder.
std::string TokenBytes(std::string_view token) {
  std::string bytes;
  for (size_t i = 0; i < token.size();) {
    const DecodedChar c = DecodeChar(token, i);
    const int byte = CharByte(c.code);
    if (byte < 0) return std::string(token);
    bytes += static_cast<char>(byte);
    i += c.size;
  }
  return bytes;
}

}  // namespace

class TokenizerReader {
 public:
  explicit TokenizerReader(std::string path) : path_(std::move(path)) {}

  absl::StatusOr<std::unique_ptr<Tokenizer>> Read();

 private:
  struct Piping {
    SplitRule rule = SplitRule::kQwen2;
    bool add_prefix_space = false;
  };

  absl::Status Bad(std::string field, std::string found,
                   std::string expected) const {
    return BadInput({.file = path_,
                     .field = std::move(field),
                     .found = std::move(found),
                     .expected = std::move(expected)});
  }
  absl::Status Bad(std::string field, const json& found,
                   std::string expected) const {
    return Bad(std::move(field), JsonPreview(found), std::move(expected));
  }

  absl::StatusOr<bool> ReadNormalizer(const json& root) const;
  absl::StatusOr<Piping> ReadPreTokenizer(const json& root) const;
  absl::StatusOr<Bpe> ReadModel(const json& root);
  absl::Status ReadVocab(const json& model);
  absl::StatusOr<std::vector<Bpe::Merge>> ReadMerges(const json& model) const;
  absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const json& root,
                                                          bool normalized);
  absl::Status CheckPostProcessor(const json& root) const;
  static std::string HashOf(const Tokenizer& tokenizer);
  absl::Status ReadSideFiles(Tokenizer& tokenizer) const;
  absl::Status ReadChatTemplate(Tokenizer& tokenizer,
                                const std::optional<json>& config) const;
  absl::StatusOr<std::optional<json>> ReadBeside(const char* name) const;

  std::string path_;
  bool ignore_merges_ = false;
  StringIds ids_;
  std::vector<Tokenizer::Token> tokens_;
  std::map<int32_t, std::string> added_;  // as text, by id
};

absl::StatusOr<bool> TokenizerReader::ReadNormalizer(const json& root) const {
  const json normalizer = root.value("normalizer", json());
  if (normalizer.is_null()) return false;
  const json type =
      normalizer.is_object() ? normalizer.value("type", json()) : json();
  if (type == "NFC") return true;
  if (type == "Sequence" && normalizer.contains("normalizers") &&
      normalizer["normalizers"] == json::array({{{"type", "NFC"}}})) {
    return true;
  }
  return Bad("normalizer", normalizer, "null or NFC");
}

absl::StatusOr<TokenizerReader::Piping> TokenizerReader::ReadPreTokenizer(
    const json& root) const {
  const json whole = root.value("pre_tokenizer", json());
  const auto type_of = [](const json& j) {
    return j.is_object() ? j.value("type", json()) : json();
  };
  json steps = json::array({whole});
  if (type_of(whole) == "Sequence") {
    steps = whole.value("pretokenizers", json::array());
  }
  const std::string expected =
      "ByteLevel with use_regex, or Split with Qwen2's pattern and ByteLevel "
      "without";
  if (!steps.is_array() || steps.empty() || steps.size() > 2 ||
      type_of(steps.back()) != "ByteLevel") {
    return Bad("pre_tokenizer", whole, expected);
  }
  const json& byte_level = steps.back();
  const json use_regex = byte_level.value("use_regex", json(true));
  const json prefix = byte_level.value("add_prefix_space", json(true));
  if (!use_regex.is_boolean() || !prefix.is_boolean()) {
    return Bad("pre_tokenizer", byte_level, "true or false");
  }
  if (steps.size() == 1) {
    if (use_regex != true) return Bad("pre_tokenizer", byte_level, expected);
    return Piping{.rule = SplitRule::kGpt2, .add_prefix_space = prefix == true};
  }
  const json& split = steps.front();
  const json pattern = split.is_object() && split.contains("pattern") &&
                               split["pattern"].is_object()
                           ? split["pattern"].value("Regex", json())
                           : json();
  if (type_of(split) != "Split" || !pattern.is_string() ||
      split.value("behavior", json()) != "Isolated" ||
      split.value("invert", json(false)) != false || use_regex != false ||
      prefix != false) {
    return Bad("pre_tokenizer", whole, expected);
  }
  const std::optional<SplitRule> rule =
      FindSplitRule(pattern.get_ref<const std::string&>());
  if (!rule.has_value()) {
    return Bad("pre_tokenizer.pretokenizers[0].pattern.Regex", pattern,
               "the pattern of Qwen2 or of GPT-2; no other is known here");
  }
  return Piping{.rule = *rule};
}

absl::Status TokenizerReader::ReadVocab(const json& model) {
  const json vocab = model.value("vocab", json());
  if (!vocab.is_object()) {
    return Bad("model.vocab", vocab, "an object of token: id");
  }
  for (const auto& [token, id] : vocab.items()) {
    const std::string field = absl::StrCat("model.vocab[\"", token, "\"]");
    if (!id.is_number_integer() || id < 0 || id >= kMaxId) {
      return Bad(field, id, "an id");
    }
    const int32_t value = id.get<int32_t>();
    if (tokens_.size() <= static_cast<size_t>(value)) {
      tokens_.resize(value + 1);
    }
    if (!tokens_[value].bytes.empty()) {
      return Bad(field, id, "an id that no other token has");
    }
    tokens_[value].bytes = TokenBytes(token);
    ids_[token] = value;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Bpe::Merge>> TokenizerReader::ReadMerges(
    const json& model) const {
  const json merges = model.value("merges", json());
  if (!merges.is_array()) {
    return Bad("model.merges", merges, "an array");
  }
  std::vector<Bpe::Merge> out;
  out.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const json& merge = merges[i];
    std::vector<std::string> parts;
    if (merge.is_string()) {  // "a b": files before 2024
      const auto& text = merge.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;
      parts = absl::StrSplit(text, ' ');
    } else if (merge.is_array()) {
      for (const json& part : merge) {
        if (part.is_string()) parts.push_back(part.get<std::string>());
      }
    }
    const std::string field = absl::StrCat("model.merges[", i, "]");
    if (parts.size() != 2) return Bad(field, merge, "two tokens");
    int32_t ids[3];
    const std::string spelled[3] = {parts[0], parts[1], parts[0] + parts[1]};
    for (int k = 0; k < 3; ++k) {
      const auto it = ids_.find(spelled[k]);
      if (it == ids_.end()) {
        return Bad(field, spelled[k], "a token of model.vocab");
      }
      ids[k] = it->second;
    }
    out.push_back({.left = ids[0], .right = ids[1], .merged = ids[2]});
  }
  return out;
}

absl::StatusOr<Bpe> TokenizerReader::ReadModel(const json& root) {
  const json model = root.value("model", json());
  if (!model.is_object()) return Bad("model", model, "an object");
  const json type = model.value("type", json("BPE"));  // old files have none
  if (type != "BPE") return Bad("model.type", type, "BPE");
  for (const char* key :
       {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const json value = model.value(key, json());
    if (!value.is_null() && value != "" && value != 0) {
      return Bad(absl::StrCat("model.", key), value, "null");
    }
  }
  for (const char* key : {"byte_fallback", "fuse_unk", "ignore_merges"}) {
    const json value = model.value(key, json(false));
    if (!value.is_boolean()) {
      return Bad(absl::StrCat("model.", key), value, "true or false");
    }
  }
  ignore_merges_ = model.value("ignore_merges", false);
  ATOD_RETURN_IF_ERROR(ReadVocab(model));
  ATOD_ASSIGN_OR_RETURN(std::vector<Bpe::Merge> merges, ReadMerges(model));
  // With every byte in the vocabulary no text is unknown: unk_token,
  // byte_fallback and fuse_unk never act.
  std::vector<int32_t> byte_ids(256);
  for (int b = 0; b < 256; ++b) {
    const std::string token = ToByteLevel(std::string(1, static_cast<char>(b)));
    const auto it = ids_.find(token);
    if (it == ids_.end()) {
      return Bad("model.vocab", absl::StrCat("no token \"", token, "\""),
                 absl::StrCat("one for byte ", b));
    }
    byte_ids[b] = it->second;
  }
  return Bpe(std::move(byte_ids), std::move(merges));
}

absl::StatusOr<std::vector<AddedToken>> TokenizerReader::ReadAddedTokens(
    const json& root, bool normalized) {
  const json added = root.value("added_tokens", json::array());
  if (!added.is_array()) return Bad("added_tokens", added, "an array");
  std::vector<AddedToken> out;
  for (size_t i = 0; i < added.size(); ++i) {
    const json& entry = added[i];
    const std::string field = absl::StrCat("added_tokens[", i, "]");
    if (!entry.is_object() || !entry.contains("content") ||
        !entry["content"].is_string() || !entry.contains("id") ||
        !entry["id"].is_number_integer() || entry["id"] < 0 ||
        entry["id"] >= kMaxId) {
      return Bad(field, entry, "an object with content and id");
    }
    for (const char* key :
         {"single_word", "lstrip", "rstrip", "normalized", "special"}) {
      const json value = entry.value(key, json(false));
      if (!value.is_boolean()) {
        return Bad(absl::StrCat(field, ".", key), value, "true or false");
      }
    }
    const bool special = entry.value("special", false);
    if (entry.value("normalized", !special) != normalized) continue;
    AddedToken token{.id = entry["id"].get<int32_t>(),
                     .content = entry["content"].get<std::string>(),
                     .single_word = entry.value("single_word", false),
                     .lstrip = entry.value("lstrip", false),
                     .rstrip = entry.value("rstrip", false)};
    if (token.content.empty()) continue;
    const auto known = ids_.find(token.content);
    if (known != ids_.end() && known->second != token.id) {
      return Bad(absl::StrCat(field, ".id"), entry["id"],
                 absl::StrCat(known->second, ", its id in model.vocab"));
    }
    if (tokens_.size() <= static_cast<size_t>(token.id)) {
      tokens_.resize(token.id + 1);
    }
    Tokenizer::Token& slot = tokens_[token.id];
    const std::string bytes = TokenBytes(token.content);
    if (!slot.bytes.empty() && slot.bytes != bytes) {
      return Bad(absl::StrCat(field, ".id"), entry["id"],
                 "an id that no other token has");
    }
    slot.bytes = bytes;
    slot.special |= special;
    added_[token.id] = absl::StrCat(
        token.id, " ", JsonPreview(entry["content"], 1000),
        token.single_word ? " single_word" : "", token.lstrip ? " lstrip" : "",
        token.rstrip ? " rstrip" : "", normalized ? " normalized" : "",
        special ? " special" : "");
    ids_[token.content] = token.id;
    out.push_back(std::move(token));
  }
  return out;
}

absl::StatusOr<std::optional<json>> TokenizerReader::ReadBeside(
    const char* name) const {
  const std::string path =
      (std::filesystem::path(path_).parent_path() / name).string();
  if (!std::filesystem::exists(path)) return std::nullopt;
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  ATOD_ASSIGN_OR_RETURN(json value, ParseJson(text, path));
  if (!value.is_object()) {
    return BadInput(
        {.file = path, .found = JsonPreview(value), .expected = "an object"});
  }
  return value;
}

absl::Status TokenizerReader::ReadSideFiles(Tokenizer& tokenizer) const {
  const std::filesystem::path folder =
      std::filesystem::path(path_).parent_path();
  ATOD_ASSIGN_OR_RETURN(const std::optional<json> config,
                        ReadBeside("tokenizer_config.json"));
  ATOD_ASSIGN_OR_RETURN(const std::optional<json> generation,
                        ReadBeside("generation_config.json"));
  const std::string config_path = (folder / "tokenizer_config.json").string();
  if (config.has_value()) {
    const json eos = config->value("eos_token", json());
    for (json token : eos.is_array() ? eos : json::array({eos})) {
      if (token.is_object()) token = token.value("content", json());
      if (token.is_null()) continue;
      std::optional<int32_t> id;
      if (token.is_string()) {
        id = tokenizer.TokenId(token.get<std::string>());
      } else if (token.is_number_integer() && token >= 0 &&
                 token < tokenizer.vocab_size()) {
        id = token.get<int32_t>();
      }
      if (!id.has_value()) {
        return BadInput({.file = config_path,
                         .field = "eos_token",
                         .found = JsonPreview(token),
                         .expected = "a token of tokenizer.json"});
      }
      tokenizer.eos_ids_.push_back(*id);
    }
    if (!tokenizer.eos_ids_.empty()) tokenizer.eos_id_ = tokenizer.eos_ids_[0];
  }
  if (!tokenizer.eos_id_.has_value() && generation.has_value()) {
    json eos = generation->value("eos_token_id", json());
    if (eos.is_array() && !eos.empty()) eos = json(eos[0]);
    if (!eos.is_null()) {
      if (!eos.is_number_integer() || eos < 0 ||
          eos >= tokenizer.vocab_size()) {
        return BadInput(
            {.file = (folder / "generation_config.json").string(),
             .field = "eos_token_id",
             .found = JsonPreview(eos),
             .expected = absl::StrCat("an id below ", tokenizer.vocab_size())});
      }
      tokenizer.eos_id_ = eos.get<int32_t>();
    }
  }
  if (!tokenizer.eos_id_.has_value()) {
    tokenizer.eos_id_ = tokenizer.TokenId("<|im_end|>");
  }
  return ReadChatTemplate(tokenizer, config);
}

// A template that cannot be understood is the template's fault only: token ids
// can be worked with.
absl::Status TokenizerReader::ReadChatTemplate(
    Tokenizer& tokenizer, const std::optional<json>& config) const {
  const std::filesystem::path folder =
      std::filesystem::path(path_).parent_path();
  const std::string jinja = (folder / "chat_template.jinja").string();
  std::string file = jinja, text;
  json value;
  if (std::filesystem::exists(jinja)) {
    ATOD_ASSIGN_OR_RETURN(text, ReadFile(jinja));
  } else {
    file = (folder / "tokenizer_config.json").string();
    if (config.has_value()) value = config->value("chat_template", json());
    if (value.is_null()) {
      ATOD_ASSIGN_OR_RETURN(const std::optional<json> own,
                            ReadBeside("chat_template.json"));
      file = (folder / "chat_template.json").string();
      if (own.has_value()) value = own->value("chat_template", json());
    }
  }
  json named = value.is_object() ? value.value("default", json()) : value;
  if (value.is_array()) {
    named = json();
    for (const json& entry : value) {
      if (entry.is_object() && entry.value("name", json()) == "default") {
        named = entry.value("template", json());
      }
    }
  }
  if (named.is_string()) text = named.get<std::string>();
  tokenizer.chat_template_ =
      absl::StrReplaceAll(text, {{"\r\n", "\n"}, {"\r", "\n"}});
  tokenizer.template_hash_ = HashHex(tokenizer.chat_template_);
  if (!value.is_null() && !named.is_string()) {
    tokenizer.template_status_ =
        BadInput({.file = file,
                  .field = "chat_template",
                  .found = JsonPreview(value),
                  .expected = "a text, or named texts with a \"default\""});
  } else {
    tokenizer.template_status_ =
        WithFile(CheckChatTemplate(tokenizer.chat_template_), file);
  }
  return absl::OkStatus();
}

// ByteLevel moves offsets only. A template adds tokens around a text that was
// encoded with special tokens, which is not done here.
absl::Status TokenizerReader::CheckPostProcessor(const json& root) const {
  const json whole = root.value("post_processor", json());
  if (whole.is_null()) return absl::OkStatus();
  const auto type_of = [](const json& j) {
    return j.is_object() ? j.value("type", json()) : json();
  };
  json steps = json::array({whole});
  if (type_of(whole) == "Sequence") {
    steps = whole.value("processors", json::array());
  }
  for (const json& step : steps) {
    bool adds = type_of(step) != "ByteLevel";
    if (type_of(step) == "TemplateProcessing") {
      const json single = step.value("single", json());
      adds = !single.is_array() || single.size() != 1 ||
             !single[0].is_object() || !single[0].contains("Sequence");
    }
    if (adds) {
      return Bad("post_processor", step,
                 "null, ByteLevel or a template that adds no token");
    }
  }
  return absl::OkStatus();
}

// "NAME=COUNT:HASH" of what a tokenizer consists of.
std::string TokenizerReader::HashOf(const Tokenizer& t) {
  const auto part = [](const char* name, size_t count,
                       const std::string& text) {
    return absl::StrCat(name, "=", count, ":", HashHex(text).substr(0, 16));
  };
  std::map<int32_t, std::string_view> spelled;
  for (const auto& [token, id] : t.ids_) spelled[id] = token;
  std::string vocabulary, merges, added;
  for (const auto& [id, token] : spelled) {
    vocabulary += absl::StrCat(id, " ", token.size(), " ");
    vocabulary += token;
  }
  for (const Bpe::Merge& m : t.bpe_.merges()) {
    absl::StrAppend(&merges, m.left, " ", m.right, "\n");
  }
  for (const std::string& token : t.added_) {
    absl::StrAppend(&added, token, "\n");
  }
  return absl::StrCat(part("vocabulary", spelled.size(), vocabulary), ",",
                      part("merges", t.bpe_.merges().size(), merges), ",",
                      part("added_tokens", t.added_.size(), added),
                      ",pipeline=", t.pipeline_);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerReader::Read() {
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path_));
  ATOD_ASSIGN_OR_RETURN(const json root, ParseJson(text, path_));
  if (!root.is_object()) return Bad("", root, "an object");
  ATOD_ASSIGN_OR_RETURN(const bool nfc, ReadNormalizer(root));
  ATOD_ASSIGN_OR_RETURN(const Piping piping, ReadPreTokenizer(root));
  const json decoder = root.value("decoder", json());
  if (!decoder.is_object() || decoder.value("type", json()) != "ByteLevel") {
    return Bad("decoder", decoder, "ByteLevel");
  }
  ATOD_RETURN_IF_ERROR(CheckPostProcessor(root));
  ATOD_ASSIGN_OR_RETURN(Bpe bpe, ReadModel(root));
  const StringIds vocab = ids_;
  ATOD_ASSIGN_OR_RETURN(std::vector<AddedToken> raw,
                        ReadAddedTokens(root, false));
  ATOD_ASSIGN_OR_RETURN(std::vector<AddedToken> normalized,
                        ReadAddedTokens(root, true));
  if (nfc) {
    for (AddedToken& token : normalized) token.content = ToNfc(token.content);
  }
  std::unique_ptr<Tokenizer> tokenizer(
      new Tokenizer(std::move(bpe), AddedTokens(std::move(raw)),
                    AddedTokens(std::move(normalized))));
  tokenizer->nfc_ = nfc;
  tokenizer->split_ = piping.rule;
  tokenizer->add_prefix_space_ = piping.add_prefix_space;
  tokenizer->file_hash_ = HashHex(text);
  tokenizer->pipeline_ = absl::StrCat(
      nfc ? "nfc+" : "", piping.rule == SplitRule::kQwen2 ? "qwen2" : "gpt2",
      piping.add_prefix_space ? "+prefix_space" : "",
      ignore_merges_ ? "+ignore_merges" : "");
  std::vector<int32_t> pieces;
  for (const auto& [token, id] : vocab) {
    const std::string& bytes = tokens_[id].bytes;
    pieces.clear();
    if (!ignore_merges_) tokenizer->bpe_.Append(bytes, pieces);
    if (ignore_merges_ || (pieces.size() == 1 && pieces[0] == id)) {
      tokenizer->whole_pieces_[bytes] = id;
    }
  }
  tokenizer->tokens_ = std::move(tokens_);
  tokenizer->ids_ = std::move(ids_);
  for (auto& [id, token] : added_) {
    tokenizer->added_.push_back(std::move(token));
  }
  tokenizer->hash_ = HashOf(*tokenizer);
  ATOD_RETURN_IF_ERROR(ReadSideFiles(*tokenizer));
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(
    const std::string& dir_or_file) {
  std::filesystem::path path = dir_or_file;
  if (std::filesystem::is_directory(path)) path /= "tokenizer.json";
  return TokenizerReader(path.string()).Read();
}

}  // namespace atod
