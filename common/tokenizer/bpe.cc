#include "common/tokenizer/bpe.h"

#include <algorithm>
#include <functional>

namespace atod {

Bpe::Bpe(std::vector<int32_t> byte_ids, std::vector<Merge> merges)
    : byte_ids_(std::move(byte_ids)), merges_(std::move(merges)) {
  ranks_.reserve(merges_.size());
  for (uint32_t rank = 0; rank < merges_.size(); ++rank) {
    ranks_[Key(merges_[rank].left, merges_[rank].right)] = rank;
  }
}

void Bpe::Append(std::string_view piece, std::vector<int32_t>& out) const {
  struct Symbol {
    int32_t id;  // -1: swallowed by its left neighbour
    int32_t prev;
    int32_t next;
  };
  if (piece.empty()) return;
  // Kept between calls: no allocation in the steady state.
  thread_local std::vector<Symbol> symbols;
  thread_local std::vector<uint64_t> heap;  // rank << 32 | left position
  symbols.clear();
  heap.clear();
  const auto size = static_cast<int32_t>(piece.size());
  const auto offer = [&](int32_t left, int32_t right) {
    const auto it = ranks_.find(Key(symbols[left].id, symbols[right].id));
    if (it == ranks_.end()) return;
    heap.push_back(static_cast<uint64_t>(it->second) << 32 |
                   static_cast<uint32_t>(left));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  for (int32_t i = 0; i < size; ++i) {
    symbols.push_back({byte_ids_[static_cast<unsigned char>(piece[i])], i - 1,
                       i + 1 < size ? i + 1 : -1});
    if (i > 0) offer(i - 1, i);
  }
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t top = heap.back();
    heap.pop_back();
    const Merge& merge = merges_[top >> 32];
    const auto at = static_cast<int32_t>(top & 0xFFFFFFFF);
    Symbol& left = symbols[at];
    // Entries of pairs that earlier merges took apart are stale.
    if (left.id != merge.left || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    if (right.id != merge.right) continue;
    left.id = merge.merged;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) {
      symbols[left.next].prev = at;
      offer(at, left.next);
    }
    if (left.prev >= 0) offer(left.prev, at);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) out.push_back(symbols[i].id);
}

}  // namespace atod
