#pragma once

#include <string>
#include <string_view>

#include "common/tokenizer/tokenizer.h"

namespace atod {

// The first thing in which two tokenizers differ, with both values
// (vocabulary: token 12: found "a", expected "b"); empty when they do the same.
std::string TokenizerDifference(const Tokenizer& found,
                                const Tokenizer& expected);

// The same for two Tokenizer::hash(), of which only the part can be named
// ("merges: found 450:8c2…, expected 450:17a…"). Hashes of another form are
// given as they are.
std::string HashDifference(std::string_view found, std::string_view expected);

}  // namespace atod
