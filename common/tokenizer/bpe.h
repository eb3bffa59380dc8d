#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

namespace atod {

// Byte-pair merging of one piece. Immutable, thread-safe.
class Bpe {
 public:
  struct Merge {
    int32_t left;
    int32_t right;
    int32_t merged;
  };

  // byte_ids[b] is the token of byte b; merges in order of rank; of equal
  // pairs the last one counts.
  Bpe(std::vector<int32_t> byte_ids, std::vector<Merge> merges);

  // Appends the tokens of `piece` (raw bytes): the pair of lowest rank is
  // merged first, of equal ones the leftmost. O(n log n).
  void Append(std::string_view piece, std::vector<int32_t>& out) const;

  absl::Span<const Merge> merges() const { return merges_; }

 private:
  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
           static_cast<uint32_t>(right);
  }

  std::vector<int32_t> byte_ids_;
  std::vector<Merge> merges_;
  absl::flat_hash_map<uint64_t, uint32_t> ranks_;
};

}  // namespace atod
