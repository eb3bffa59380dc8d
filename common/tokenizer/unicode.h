#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace atod {

// The classes of characters that pre-tokenizers tell apart: \p{L}, \p{N},
// [\r\n], the rest of \s, everything else.
enum class CharClass : uint8_t { kLetter, kNumber, kNewline, kSpace, kOther };

CharClass ClassOf(char32_t c);

// \w: letters (circled ones too), marks, decimal digits, letter numbers,
// connectors, joiners.
bool IsWordChar(char32_t c);

struct DecodedChar {
  char32_t code;
  size_t size;  // bytes
};

// The character at text[at]. `text` must be valid UTF-8 and at < text.size().
inline DecodedChar DecodeChar(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[at + i]));
  };
  const char32_t b = byte(0);
  if (b < 0x80) return {b, 1};
  if (b < 0xE0) return {(b & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (b < 0xF0) {
    return {(b & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  }
  return {(b & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
              (byte(3) & 0x3F),
          4};
}

void AppendUtf8(char32_t c, std::string& out);

bool IsValidUtf8(std::string_view text);

// `text` with U+FFFD in place of every maximal invalid part, the way Python
// and Rust replace them.
std::string ToValidUtf8(std::string_view text);

// Normalisation form C of valid UTF-8, as Hugging Face's tokenizers make it.
std::string ToNfc(std::string_view text);

// The printable stand-ins of GPT-2's byte-level alphabet: ByteChar(b) is the
// character that stands for byte b, and CharByte its inverse (-1: none).
char32_t ByteChar(unsigned char byte);
int CharByte(char32_t c);

// Bytes written in that alphabet.
std::string ToByteLevel(std::string_view bytes);

}  // namespace atod
