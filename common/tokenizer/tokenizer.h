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
// its own pattern; decoder ByteLevel; a post-processor that adds no token.
// Anything else is refused by name.
//
// Immutable after Load, so thread-safe.
class Tokenizer {
 public:
  // Reads a tokenizer.json, or a folder that holds one; beside it
  // tokenizer_config.json, generation_config.json and the chat template when
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

  // The end tokens that tokenizer_config.json declares: eos_token, a token or
  // an id, one or a list. All that end a response: model::StopTokens.
  const std::vector<int32_t>& eos_ids() const { return eos_ids_; }

  // False for an id that no entry of tokenizer.json has.
  bool HasToken(int32_t id) const {
    return id >= 0 && id < vocab_size() && !tokens_[id].bytes.empty();
  }

  // What the tokenizer does, not how its file is written: equal for two files
  // exactly when tokens with their ids, merges, added tokens, normaliser and
  // pre-tokeniser are. "vocabulary=SIZE:XXH3,merges=…,added_tokens=…,
  // pipeline=…", so that the first part that differs can be named
  // (HashDifference in difference.h).
  const std::string& hash() const { return hash_; }

  // XXH3-128 of the bytes of tokenizer.json: what `hash` was in checkpoints of
  // earlier versions.
  const std::string& file_hash() const { return file_hash_; }

  // XXH3-128 of the chat template, of the empty string when there is none.
  const std::string& template_hash() const { return template_hash_; }

  // The chat template, empty when there is none, with its line ends as \n (as
  // Jinja reads it): chat_template.jinja, else chat_template of
  // tokenizer_config.json, else of chat_template.json. There it is a text, or
  // named texts (an object, or a list of {name, template}) of which "default"
  // counts.
  const std::string& chat_template() const { return chat_template_; }

  // OK when RenderChat renders as the model's template does. Otherwise the
  // error names file and key; whoever plays with chat prompts asks before it
  // starts.
  const absl::Status& template_status() const { return template_status_; }

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
  friend std::string TokenizerDifference(const Tokenizer& found,
                                         const Tokenizer& expected);

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
  std::vector<int32_t> eos_ids_;
  std::vector<std::string> added_;  // as text, in the order of their ids
  std::string pipeline_;            // normaliser and pre-tokeniser as text
  std::string hash_;
  std::string file_hash_;
  std::string chat_template_;
  absl::Status template_status_;
  std::string template_hash_;
};

}  // namespace atod
