#include "services/envs/alfworld/projection.h"

#include <vector>

#include "utf8proc.h"

namespace atod::envs {
namespace {

constexpr size_t kFallbackCharacters = 30;

// Code points with their bytes. A byte that is no UTF-8 stands for itself.
struct Character {
  std::string bytes;
  int32_t code;  // -1 for a stray byte
};

std::vector<Character> Characters(std::string_view text) {
  std::vector<Character> out;
  while (!text.empty()) {
    utf8proc_int32_t code = -1;
    utf8proc_ssize_t n =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                         static_cast<utf8proc_ssize_t>(text.size()), &code);
    if (n < 1) {
      n = 1;
      code = -1;
    }
    out.push_back({std::string(text.substr(0, n)), code});
    text.remove_prefix(n);
  }
  return out;
}

void Append(int32_t code, std::vector<Character>& out) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t n = utf8proc_encode_char(code, bytes);
  out.push_back({std::string(reinterpret_cast<char*>(bytes), n), code});
}

std::vector<Character> Lower(std::string_view text) {
  std::vector<Character> out;
  for (const Character& c : Characters(text)) {
    if (c.code < 0) {
      out.push_back(c);
    } else if (c.code == 0x130) {
      // The one letter whose lower case is two characters.
      Append('i', out);
      Append(0x307, out);
    } else {
      Append(utf8proc_tolower(c.code), out);
    }
  }
  return out;
}

bool IsBlank(int32_t c) {
  return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) ||
         c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
         c == 0x202f || c == 0x205f || c == 0x3000;
}

std::string Strip(std::string_view text) {
  const std::vector<Character> all = Characters(text);
  size_t begin = 0, end = all.size();
  while (begin < end && IsBlank(all[begin].code)) ++begin;
  while (end > begin && IsBlank(all[end - 1].code)) --end;
  std::string out;
  for (size_t i = begin; i < end; ++i) out += all[i].bytes;
  return out;
}

}  // namespace

Projected ProjectTagged(std::string_view response) {
  constexpr std::string_view kOpen = "<action>", kClose = "</action>";
  const std::vector<Character> lower = Lower(response);
  std::string text;
  for (const Character& c : lower) text += c.bytes;
  const size_t open = text.find(kOpen);
  const size_t close = text.find(kClose);
  Projected out;
  if (open == std::string::npos || close == std::string::npos) {
    const size_t from = lower.size() > kFallbackCharacters
                            ? lower.size() - kFallbackCharacters
                            : 0;
    for (size_t i = from; i < lower.size(); ++i) out.action += lower[i].bytes;
    return out;
  }
  const size_t begin = open + kOpen.size();
  if (close > begin)
    out.action = Strip(std::string_view(text).substr(begin, close - begin));
  out.valid = response.find("<think>") != std::string_view::npos &&
              response.find("</think>") != std::string_view::npos;
  for (const Character& c : Characters(response))
    if (c.code >= 0x4e00 && c.code <= 0x9fff) out.valid = false;
  return out;
}

Projected ProjectBare(std::string_view response) {
  Projected out;
  out.action = Strip(response);
  out.valid = !out.action.empty() && out.action.find('\n') == std::string::npos;
  return out;
}

Projected Project(std::string_view prompt_set, std::string_view response) {
  return prompt_set == "compact" ? ProjectBare(response)
                                 : ProjectTagged(response);
}

}  // namespace atod::envs
