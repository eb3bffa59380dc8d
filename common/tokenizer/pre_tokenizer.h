#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace atod {

// How a text falls into the pieces that BPE merges inside of. Scanners written
// by hand for the two patterns that matter; a test holds them against PCRE2.
enum class SplitRule {
  kQwen2,  // Qwen2, Qwen2.5, Qwen3
  kGpt2,   // ByteLevel with use_regex
};

// The regular expression of a rule, as tokenizer.json spells it.
std::string_view SplitPattern(SplitRule rule);

// The rule whose regular expression is `pattern`.
std::optional<SplitRule> FindSplitRule(std::string_view pattern);

// End of the piece that begins at text[begin]: begin < result <= text.size().
// `text` is valid UTF-8 and begin lies on a character.
size_t PieceEnd(SplitRule rule, std::string_view text, size_t begin);

}  // namespace atod
