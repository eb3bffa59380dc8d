#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tokenizer/added_tokens.h"
#include "common/tokenizer/bpe.h"
#include "common/tokenizer/pre_tokenizer.h"
#include "common/tokenizer/string_ids.h"

namespace atod {

// A Hugging Face byte-level BPE tokenizer (tokenizer.json), giving the ids
// that the `tokenizers` library gives with add_special_tokens=False.
// Supported: model BPE with an alphabet of all 256 bytes; normaliser NFC or
// none; pre-tokeniser Split (Qwen2's pattern) + ByteLevel, or ByteLevel with
// its own pattern; decoder ByteLevel. Anything else is refused by name.
//
// Immutable after Load, so thread-safe.
class Tokenizer {
 public:
  // Reads a tokenizer.json, or a folder that holds one; beside it
  // tokenizer_config.json, generation_config.json and chat_template.jinja when
  // they exist. INVALID_ARGUMENT names file and field.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(
      const std::string& dir_or_file);

  // Special and added tokens inside the text are recognised. Bytes that are
  // not UTF-8 count as U+FFFD.
  std::vector<int32_t> Encode(std::string_view text) const;

  // The text of the tokens; ids outside the vocabulary give nothing, bytes
  // that do not form UTF-8 give U+FFFD.
  std::string Decode(const std::vector<int32_t>& ids,
                     bool skip_special = false) const;

  // The highest id plus one. A model may have more rows (padding).
  int32_t vocab_size() const { return static_cast<int32_t>(tokens_.size()); }

  // By the token's spelling in tokenizer.json.
  std::optional<int32_t> TokenId(std::string_view token) const;

  // The end token of a response: eos_token of tokenizer_config.json, else
  // eos_token_id (the first) of generation_config.json, else <|im_end|>.
  std::optional<int32_t> eos_id() const { return eos_id_; }

  // XXH3-128 of tokenizer.json.
  const std::string& hash() const { return hash_; }

  // XXH3-128 of the chat template (chat_template.jinja, else chat_template of
  // tokenizer_config.json), of the empty string when there is none.
  const std::string& template_hash() const { return template_hash_; }

  // The chat template itself, empty when there is none.
  const std::string& chat_template() const { return chat_template_; }

 private:
  struct Token {
    std::string bytes;
    bool special = false;
  };

  Tokenizer(Bpe bpe, AddedTokens raw, AddedTokens normalized)
      : bpe_(std::move(bpe)),
        raw_added_(std::move(raw)),
        normalized_added_(std::move(normalized)) {}

  friend class TokenizerReader;

  void EncodeText(std::string_view text, std::vector<int32_t>& out) const;
  void EncodePieces(std::string_view text, std::vector<int32_t>& out) const;

  Bpe bpe_;
  // Added tokens are looked for twice, as HF does: first those that match the
  // text as it came, then those that match its normalised form.
  AddedTokens raw_added_;
  AddedTokens normalized_added_;
  bool nfc_ = false;
  SplitRule split_ = SplitRule::kQwen2;
  bool add_prefix_space_ = false;
  std::vector<Token> tokens_;  // by id
  StringIds ids_;              // by spelling
  // Pieces that are one token: most of a text, found with one look-up.
  StringIds whole_pieces_;
  std::optional<int32_t> eos_id_;
  std::string hash_;
  std::string chat_template_;
  std::string template_hash_;
};

}  // namespace atod
