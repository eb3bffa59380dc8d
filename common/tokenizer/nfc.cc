// ToNfc: utf8proc's composition, held to what Hugging Face's normaliser does.
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <memory>

#include "common/tokenizer/unicode.h"

namespace atod {
namespace {

struct Range {
  char32_t first;
  char32_t last;
};

// Characters that neither move nor compose. Hugging Face's normaliser has the
// tables of Unicode 9, where the marks among these do not exist yet: ids of
// trained models depend on that. U+11A7 stands before the Hangul final
// consonants; utf8proc takes it for one and swallows it.
constexpr Range kInert[] = {
    {0x07FD, 0x07FD},   {0x0898, 0x089F},   {0x08CA, 0x08D3},
    {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},   {0x0D3B, 0x0D3C},
    {0x0EBA, 0x0EBA},   {0x11A7, 0x11A7},   {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},
    {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070},
    {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
    {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
    {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1},
    {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}};

bool IsInert(char32_t c) {
  if (c < kInert[0].first) return false;
  const Range* range = std::lower_bound(
      std::begin(kInert), std::end(kInert), c,
      [](const Range& r, char32_t value) { return r.last < value; });
  return range != std::end(kInert) && c >= range->first;
}

void AppendComposed(std::string_view text, std::string& out) {
  if (text.empty()) return;
  utf8proc_uint8_t* raw = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
      static_cast<utf8proc_ssize_t>(text.size()), &raw,
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(
      raw, &std::free);
  if (size < 0) {  // out of memory only
    out += text;
  } else {
    out.append(reinterpret_cast<const char*>(raw), static_cast<size_t>(size));
  }
}

}  // namespace

std::string ToNfc(std::string_view text) {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x80;
  });
  if (ascii) return std::string(text);
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = DecodeChar(text, i);
    if (IsInert(c.code)) {
      AppendComposed(text.substr(done, i - done), out);
      done = i + c.size;
      out += text.substr(i, c.size);
    }
    i += c.size;
  }
  AppendComposed(text.substr(done), out);
  return out;
}

}  // namespace atod
