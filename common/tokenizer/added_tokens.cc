#include "common/tokenizer/added_tokens.h"

#include <algorithm>

#include "common/tokenizer/unicode.h"

namespace atod {
namespace {

bool IsSpace(CharClass c) {
  return c == CharClass::kSpace || c == CharClass::kNewline;
}

// Start of the last character of `text`.
size_t LastChar(std::string_view text) {
  size_t i = text.size() - 1;
  while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) --i;
  return i;
}

bool EndsWithWordChar(std::string_view text) {
  return !text.empty() && IsWordChar(DecodeChar(text, LastChar(text)).code);
}

bool StartsWithWordChar(std::string_view text) {
  return !text.empty() && IsWordChar(DecodeChar(text, 0).code);
}

size_t TrailingSpace(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const size_t i = LastChar(text.substr(0, end));
    if (!IsSpace(ClassOf(DecodeChar(text, i).code))) break;
    end = i;
  }
  return text.size() - end;
}

size_t LeadingSpace(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const DecodedChar c = DecodeChar(text, i);
    if (!IsSpace(ClassOf(c.code))) break;
    i += c.size;
  }
  return i;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)) {
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) {
                     return a.content.size() > b.content.size();
                   });
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].content.empty()) continue;
    by_first_byte_[static_cast<unsigned char>(tokens_[i].content[0])].push_back(
        i);
  }
}

const AddedToken* AddedTokens::LongestAt(std::string_view text) const {
  for (const uint32_t i :
       by_first_byte_[static_cast<unsigned char>(text.front())]) {
    if (text.starts_with(tokens_[i].content)) return &tokens_[i];
  }
  return nullptr;
}

void AddedTokens::Split(
    std::string_view text,
    absl::FunctionRef<void(int32_t id, std::string_view part)> emit) const {
  size_t done = 0;
  for (size_t i = 0; i < text.size();) {
    const AddedToken* token = LongestAt(text.substr(i));
    if (token == nullptr) {
      ++i;
      continue;
    }
    size_t begin = i;
    size_t end = i + token->content.size();
    i = end;
    if (token->single_word && (EndsWithWordChar(text.substr(0, begin)) ||
                               StartsWithWordChar(text.substr(end)))) {
      continue;
    }
    if (token->lstrip) {
      // Blanks that the token before has taken stay with it.
      begin = std::max(begin - TrailingSpace(text.substr(0, begin)), done);
    }
    if (token->rstrip) end += LeadingSpace(text.substr(end));
    if (done < begin) emit(-1, text.substr(done, begin - done));
    emit(token->id, text.substr(begin, end - begin));
    done = end;
  }
  if (done < text.size()) emit(-1, text.substr(done));
}

}  // namespace atod
