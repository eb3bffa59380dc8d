#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "common/model/language_model.h"

namespace atod::engine {

// Who owns which rows of a key/value cache of fixed size. Regions are
// contiguous, in units of kCacheUnit rows, and never overlap; each is given
// out first fit. It only counts: the owner carries out what Compact says.
// Freeing or growing a region that is not out aborts. Not thread-safe.
class RegionPool {
 public:
  // A region that Compact moved, from begin to begin.
  struct Move {
    int64_t from = 0;
    int64_t to = 0;
  };

  // Whole units of `rows`.
  explicit RegionPool(int64_t rows);

  // `rows` in whole units.
  static int64_t RoundUp(int64_t rows);

  // At least `rows` (> 0) rows at the lowest place that has them free; none
  // when no hole is long enough, even where the holes together are.
  std::optional<model::Region> Allocate(int64_t rows);
  // The same region with at least `rows` rows, if those behind it are free.
  bool Grow(model::Region& region, int64_t rows);
  // Gives back what lies behind the first `rows` (> 0) rows.
  void Shrink(model::Region& region, int64_t rows);
  void Free(const model::Region& region);
  // Moves all regions down, so that what is free is one hole at the end. The
  // moves are to be carried out in the order given: each goes down, so that
  // none overwrites what a later one still reads.
  std::vector<Move> Compact();

  int64_t rows() const { return rows_; }
  int64_t used() const { return used_; }
  int64_t free() const { return rows_ - used_; }
  // Regions that are out: 0 when nothing leaked.
  size_t regions() const { return taken_.size(); }

 private:
  using Taken = std::map<int64_t, int64_t>;
  Taken::iterator Find(const model::Region& region);
  // First row behind a region's hole: of the next region, or the end.
  int64_t NextBegin(Taken::const_iterator region) const;

  const int64_t rows_;
  int64_t used_ = 0;
  Taken taken_;  // first row -> rows
};

}  // namespace atod::engine
