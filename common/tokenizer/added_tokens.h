#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"

namespace atod {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
};

// Finds added tokens in a text: leftmost, of those the longest. Immutable.
class AddedTokens {
 public:
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // Calls `emit(id, part)` for the parts of `text` in order; id is -1 for text
  // between tokens. Parts are never empty.
  void Split(
      std::string_view text,
      absl::FunctionRef<void(int32_t id, std::string_view part)> emit) const;

 private:
  const AddedToken* LongestAt(std::string_view text) const;

  std::vector<AddedToken> tokens_;  // sorted by falling length
  // Indices into tokens_ by first byte.
  std::array<std::vector<uint32_t>, 256> by_first_byte_;
};

}  // namespace atod
