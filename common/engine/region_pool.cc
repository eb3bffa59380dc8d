#include "common/engine/region_pool.h"

#include <cstdlib>
#include <iterator>
#include <utility>

namespace atod::engine {

using model::kCacheUnit;
using model::Region;

RegionPool::RegionPool(int64_t rows) : rows_(rows / kCacheUnit * kCacheUnit) {}

int64_t RegionPool::RoundUp(int64_t rows) {
  return (rows + kCacheUnit - 1) / kCacheUnit * kCacheUnit;
}

RegionPool::Taken::iterator RegionPool::Find(const Region& region) {
  const auto it = taken_.find(region.begin);
  if (it == taken_.end() || it->second != region.rows) std::abort();
  return it;
}

int64_t RegionPool::NextBegin(Taken::const_iterator region) const {
  const auto next = std::next(region);
  return next == taken_.end() ? rows_ : next->first;
}

std::optional<Region> RegionPool::Allocate(int64_t rows) {
  if (rows <= 0) std::abort();
  const int64_t wanted = RoundUp(rows);
  int64_t hole = 0;  // its first row
  for (const auto& [begin, length] : taken_) {
    if (begin - hole >= wanted) break;
    hole = begin + length;
  }
  const auto next = taken_.lower_bound(hole);
  const int64_t end = next == taken_.end() ? rows_ : next->first;
  if (end - hole < wanted) return std::nullopt;
  taken_.emplace(hole, wanted);
  used_ += wanted;
  return Region{hole, wanted};
}

bool RegionPool::Grow(Region& region, int64_t rows) {
  const auto it = Find(region);
  const int64_t wanted = RoundUp(rows);
  if (wanted <= region.rows) return true;
  if (NextBegin(it) - region.begin < wanted) return false;
  used_ += wanted - region.rows;
  region.rows = it->second = wanted;
  return true;
}

void RegionPool::Shrink(Region& region, int64_t rows) {
  if (rows <= 0) std::abort();
  const auto it = Find(region);
  const int64_t wanted = RoundUp(rows);
  if (wanted >= region.rows) return;
  used_ -= region.rows - wanted;
  region.rows = it->second = wanted;
}

void RegionPool::Free(const Region& region) {
  taken_.erase(Find(region));
  used_ -= region.rows;
}

std::vector<RegionPool::Move> RegionPool::Compact() {
  std::vector<Move> moves;
  Taken packed;
  int64_t end = 0;
  for (const auto& [begin, length] : taken_) {
    if (begin != end) moves.push_back({begin, end});
    packed.emplace_hint(packed.end(), end, length);
    end += length;
  }
  taken_ = std::move(packed);
  return moves;
}

}  // namespace atod::engine
