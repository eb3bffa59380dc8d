#include "common/tokenizer/pre_tokenizer.h"

#include "common/tokenizer/unicode.h"

namespace atod {
namespace {

constexpr std::string_view kQwen2Pattern =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kGpt2Pattern =
    R"re('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)re";

struct Char {
  CharClass cls;
  size_t size;  // 0 at the end of the text
};

Char At(std::string_view text, size_t i) {
  if (i >= text.size()) return {CharClass::kOther, 0};
  const DecodedChar c = DecodeChar(text, i);
  return {ClassOf(c.code), c.size};
}

bool Is(const Char& c, CharClass cls) { return c.size > 0 && c.cls == cls; }

bool IsSpace(const Char& c) {
  return Is(c, CharClass::kSpace) || Is(c, CharClass::kNewline);
}

size_t SkipClass(std::string_view text, size_t i, CharClass cls) {
  for (Char c = At(text, i); Is(c, cls); c = At(text, i)) i += c.size;
  return i;
}

// Length of 's 't 're 've 'm 'll 'd at text[i], 0 for none.
size_t Contraction(std::string_view text, size_t i, bool ignore_case) {
  if (text[i] != '\'') return 0;
  const auto letter = [&](size_t k) -> char {
    if (i + k >= text.size()) return 0;
    const char c = text[i + k];
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return letter(2) == 'e' ? 3 : 0;
    case 'l':
      return letter(2) == 'l' ? 3 : 0;
    default:
      // U+017F, the long s, is an s when case is ignored.
      return ignore_case && text.substr(i + 1, 2) == "\xC5\xBF" ? 3 : 0;
  }
}

// \s*[\r\n]+ (when `newlines`), else \s+(?!\S), else \s+.
size_t SpaceEnd(std::string_view text, size_t begin, bool newlines) {
  size_t end = begin, last = begin, after_newline = 0;
  for (Char c = At(text, end); IsSpace(c); c = At(text, end)) {
    last = end;
    end += c.size;
    if (c.cls == CharClass::kNewline) after_newline = end;
  }
  if (newlines && after_newline > 0) return after_newline;
  // The last blank before a word belongs to the word's piece.
  return end == text.size() || last == begin ? end : last;
}

size_t Qwen2End(std::string_view text, size_t begin) {
  if (const size_t n = Contraction(text, begin, true)) return begin + n;
  const Char c = At(text, begin);
  if (c.cls == CharClass::kLetter) {
    return SkipClass(text, begin, CharClass::kLetter);
  }
  const size_t after = begin + c.size;
  if (c.cls == CharClass::kNumber) return after;
  const Char next = At(text, after);
  if (c.cls != CharClass::kNewline && Is(next, CharClass::kLetter)) {
    return SkipClass(text, after, CharClass::kLetter);
  }
  if (c.cls == CharClass::kOther ||
      (text[begin] == ' ' && Is(next, CharClass::kOther))) {
    return SkipClass(text, SkipClass(text, after, CharClass::kOther),
                     CharClass::kNewline);
  }
  return SpaceEnd(text, begin, true);
}

size_t Gpt2End(std::string_view text, size_t begin) {
  if (const size_t n = Contraction(text, begin, false)) return begin + n;
  size_t first = begin;
  if (text[begin] == ' ' && begin + 1 < text.size()) ++first;
  const Char c = At(text, first);
  if (IsSpace(c)) return SpaceEnd(text, begin, false);
  return SkipClass(text, first, c.cls);
}

}  // namespace

std::string_view SplitPattern(SplitRule rule) {
  return rule == SplitRule::kQwen2 ? kQwen2Pattern : kGpt2Pattern;
}

std::optional<SplitRule> FindSplitRule(std::string_view pattern) {
  if (pattern == kQwen2Pattern) return SplitRule::kQwen2;
  if (pattern == kGpt2Pattern) return SplitRule::kGpt2;
  return std::nullopt;
}

size_t PieceEnd(SplitRule rule, std::string_view text, size_t begin) {
  return rule == SplitRule::kQwen2 ? Qwen2End(text, begin)
                                   : Gpt2End(text, begin);
}

}  // namespace atod
