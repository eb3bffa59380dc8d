#include "common/tokenizer/tokenizer.h"

#include "common/tokenizer/unicode.h"

namespace atod {

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  std::string repaired;
  if (!IsValidUtf8(text)) {
    repaired = ToValidUtf8(text);
    text = repaired;
  }
  std::vector<int32_t> out;
  out.reserve(text.size() / 3);
  raw_added_.Split(text, [&](int32_t id, std::string_view part) {
    if (id >= 0) {
      out.push_back(id);
    } else if (nfc_) {
      EncodeText(ToNfc(part), out);
    } else {
      EncodeText(part, out);
    }
  });
  return out;
}

void Tokenizer::EncodeText(std::string_view text,
                           std::vector<int32_t>& out) const {
  normalized_added_.Split(text, [&](int32_t id, std::string_view part) {
    if (id >= 0) {
      out.push_back(id);
    } else if (add_prefix_space_ && part.front() != ' ') {
      std::string prefixed = " ";
      prefixed += part;
      EncodePieces(prefixed, out);
    } else {
      EncodePieces(part, out);
    }
  });
}

void Tokenizer::EncodePieces(std::string_view text,
                             std::vector<int32_t>& out) const {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = PieceEnd(split_, text, begin);
    const std::string_view piece = text.substr(begin, end - begin);
    const auto whole = whole_pieces_.find(piece);
    if (whole != whole_pieces_.end()) {
      out.push_back(whole->second);
    } else {
      bpe_.Append(piece, out);
    }
    begin = end;
  }
}

std::string Tokenizer::Decode(const std::vector<int32_t>& ids,
                              bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) continue;
    const Token& token = tokens_[id];
    if (!(skip_special && token.special)) bytes += token.bytes;
  }
  return IsValidUtf8(bytes) ? bytes : ToValidUtf8(bytes);
}

std::optional<int32_t> Tokenizer::TokenId(std::string_view token) const {
  const auto it = ids_.find(token);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

}  // namespace atod
