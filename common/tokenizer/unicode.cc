#include "common/tokenizer/unicode.h"

#include <utf8proc.h>

#include <array>

namespace atod {
namespace {

// Letters and numbers of Unicode 15.1 and 16.0, which Hugging Face's regular
// expressions know and packaged versions of utf8proc do not.
struct Range {
  char32_t first;
  char32_t last;
};
constexpr Range kNewLetters[] = {
    {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},
    {0x105C0, 0x105F3}, {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85},
    {0x10EC2, 0x10EC4}, {0x11380, 0x11389}, {0x1138B, 0x1138B},
    {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7},
    {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0},
    {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C},
    {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED}, {0x1E5F0, 0x1E5F0},
    {0x2EBF0, 0x2EE5D}};
constexpr Range kNewNumbers[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3},
                                 {0x11BF0, 0x11BF9}, {0x16130, 0x16139},
                                 {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9},
                                 {0x1E5F1, 0x1E5FA}};

CharClass ClassOfNew(char32_t c) {
  for (const Range& r : kNewLetters) {
    if (c >= r.first && c <= r.last) return CharClass::kLetter;
  }
  for (const Range& r : kNewNumbers) {
    if (c >= r.first && c <= r.last) return CharClass::kNumber;
  }
  return CharClass::kOther;
}

CharClass SlowClassOf(char32_t c) {
  switch (c) {  // the White_Space property
    case '\r':
    case '\n':
      return CharClass::kNewline;
    case '\t':
    case '\v':
    case '\f':
    case 0x85:
      return CharClass::kSpace;
    default:
      break;
  }
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::kSpace;
    case UTF8PROC_CATEGORY_CN:
      return ClassOfNew(c);
    default:
      return CharClass::kOther;
  }
}

// Size of the valid sequence at text[at], or 0; `part` is then the length of
// the maximal invalid part (at least 1).
size_t ValidSequence(std::string_view text, size_t at, size_t& part) {
  const auto byte = [&](size_t i) -> int {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : -1;
  };
  const int b = byte(0);
  part = 1;
  if (b < 0x80) return 1;
  int low = 0x80, high = 0xBF;  // range of the second byte
  size_t size = 0;
  if (b >= 0xC2 && b <= 0xDF) {
    size = 2;
  } else if (b >= 0xE0 && b <= 0xEF) {
    size = 3;
    if (b == 0xE0) low = 0xA0;
    if (b == 0xED) high = 0x9F;
  } else if (b >= 0xF0 && b <= 0xF4) {
    size = 4;
    if (b == 0xF0) low = 0x90;
    if (b == 0xF4) high = 0x8F;
  } else {
    return 0;
  }
  for (size_t i = 1; i < size; ++i) {
    if (byte(i) < low || byte(i) > high) {
      part = i;
      return 0;
    }
    low = 0x80;
    high = 0xBF;
  }
  return size;
}

struct ByteAlphabet {
  std::array<char32_t, 256> chars;
  std::array<int16_t, 512> bytes;

  ByteAlphabet() {
    bytes.fill(-1);
    char32_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable =
          (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      chars[b] = printable ? static_cast<char32_t>(b) : next++;
      bytes[chars[b]] = static_cast<int16_t>(b);
    }
  }
};

const ByteAlphabet& Alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

}  // namespace

CharClass ClassOf(char32_t c) {
  static const auto latin = [] {
    std::array<CharClass, 256> table;
    for (char32_t i = 0; i < 256; ++i) table[i] = SlowClassOf(i);
    return table;
  }();
  return c < 256 ? latin[c] : SlowClassOf(c);
}

bool IsWordChar(char32_t c) {
  const bool circled_letter =
      (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
      (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
  if (circled_letter) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    case UTF8PROC_CATEGORY_CN:
      return ClassOfNew(c) != CharClass::kOther;
    default:
      return ClassOf(c) == CharClass::kLetter || c == 0x200C || c == 0x200D;
  }
}

void AppendUtf8(char32_t c, std::string& out) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

bool IsValidUtf8(std::string_view text) {
  size_t part = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t size = ValidSequence(text, i, part);
    if (size == 0) return false;
    i += size;
  }
  return true;
}

std::string ToValidUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    size_t part = 0;
    const size_t size = ValidSequence(text, i, part);
    if (size > 0) {
      out.append(text.substr(i, size));
      i += size;
    } else {
      out += "\xEF\xBF\xBD";
      i += part;
    }
  }
  return out;
}

char32_t ByteChar(unsigned char byte) { return Alphabet().chars[byte]; }

int CharByte(char32_t c) {
  return c < Alphabet().bytes.size() ? Alphabet().bytes[c] : -1;
}

std::string ToByteLevel(std::string_view bytes) {
  std::string out;
  out.reserve(2 * bytes.size());
  for (const char c : bytes) {
    AppendUtf8(ByteChar(static_cast<unsigned char>(c)), out);
  }
  return out;
}

}  // namespace atod
