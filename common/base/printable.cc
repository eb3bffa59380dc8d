#include "common/base/printable.h"

#include "absl/strings/str_format.h"

namespace atod {
namespace {

// Bytes of the UTF-8 character at the front of `text`, 0 when there is none.
size_t CharacterBytes(std::string_view text) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t bytes = lead >= 0xc2 && lead <= 0xdf   ? 2
                       : lead >= 0xe0 && lead <= 0xef ? 3
                       : lead >= 0xf0 && lead <= 0xf4 ? 4
                                                      : 0;
  for (size_t i = 1; i < bytes; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  return bytes;
}

// Whether a terminal would act on it. The controls from U+0080 to U+009F are
// written with two bytes.
bool Control(std::string_view character) {
  const auto lead = static_cast<unsigned char>(character[0]);
  if (character.size() == 2)
    return lead == 0xc2 && static_cast<unsigned char>(character[1]) < 0xa0;
  return lead == 0x7f || (lead < 0x20 && lead != '\n' && lead != '\t');
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t bytes = CharacterBytes(text);
    const std::string_view character = text.substr(0, bytes == 0 ? 1 : bytes);
    if (bytes > 0 && !Control(character)) {
      out.append(character);
    } else {
      for (const char c : character)
        absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned char>(c));
    }
    text.remove_prefix(character.size());
  }
  return out;
}

std::string OneLine(std::string_view text) {
  std::string out = Printable(text);
  for (char& c : out)
    if (c == '\n') c = ' ';
  return out;
}

}  // namespace atod
