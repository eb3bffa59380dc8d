#include "common/engine/region_pool.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/rng.h"
#include "gtest/gtest.h"

namespace atod::engine {
namespace {

using model::kCacheUnit;
using model::Region;

// Rows as marks of the region that owns them; 0 is free.
class Bitmap {
 public:
  explicit Bitmap(int64_t rows) : marks_(rows) {}
  // First row of the first hole of that length.
  std::optional<int64_t> Hole(int64_t rows) const {
    int64_t run = 0;
    for (size_t i = 0; i < marks_.size(); ++i) {
      run = marks_[i] == 0 ? run + 1 : 0;
      if (run == rows) return static_cast<int64_t>(i) + 1 - rows;
    }
    return std::nullopt;
  }
  bool IsFree(int64_t begin, int64_t end) const {
    if (end > static_cast<int64_t>(marks_.size())) return false;
    for (int64_t i = begin; i < end; ++i)
      if (marks_[i] != 0) return false;
    return true;
  }
  void Mark(const Region& r, int mark) {
    for (int64_t i = r.begin; i < r.begin + r.rows; ++i) marks_[i] = mark;
  }
  bool Holds(const Region& r, int mark) const {
    for (int64_t i = r.begin; i < r.begin + r.rows; ++i)
      if (marks_[i] != mark) return false;
    return true;
  }
  int64_t used() const {
    int64_t n = 0;
    for (const int m : marks_) n += m != 0;
    return n;
  }
  // As the owner of a cache would copy it.
  void Copy(int64_t from, int64_t to, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) marks_[to + i] = marks_[from + i];
  }
  std::vector<int>& marks() { return marks_; }

 private:
  std::vector<int> marks_;
};

class RandomOperations {
 public:
  RandomOperations(int64_t rows, uint64_t seed)
      : rng_(seed), rows_(rows), pool_(rows), bitmap_(rows) {}

  void Step() {
    switch (rng_.Below(8)) {
      case 0:
      case 1:
      case 2:
        return Allocate();
      case 3:
      case 4:
        return FreeOne();
      case 5:
        return GrowOne();
      case 6:
        return ShrinkOne();
      default:
        if (rng_.Below(10) == 0) Compact();
    }
  }
  void Check() {
    ASSERT_EQ(pool_.used(), bitmap_.used());
    ASSERT_EQ(pool_.free(), rows_ - bitmap_.used());
    ASSERT_EQ(pool_.regions(), out_.size());
    for (const auto& [mark, region] : out_) {
      ASSERT_EQ(region.begin % kCacheUnit, 0);
      ASSERT_EQ(region.rows % kCacheUnit, 0);
      ASSERT_GE(region.begin, 0);
      ASSERT_LE(region.begin + region.rows, rows_);
      ASSERT_TRUE(bitmap_.Holds(region, mark)) << "regions overlap";
    }
  }
  void FreeAll() {
    while (!out_.empty()) FreeOne();
    EXPECT_EQ(pool_.used(), 0);
    EXPECT_EQ(pool_.regions(), 0u);
    const auto whole = pool_.Allocate(rows_);
    ASSERT_TRUE(whole.has_value()) << "all rows are free, in one hole";
    EXPECT_EQ(*whole, (Region{0, rows_}));
  }

 private:
  int64_t Size() {
    return 1 + static_cast<int64_t>(
                   rng_.Below(rng_.Below(4) == 0 ? rows_ / 2 : 100));
  }
  void Allocate() {
    const int64_t rows = Size();
    const auto hole = bitmap_.Hole(RegionPool::RoundUp(rows));
    const auto region = pool_.Allocate(rows);
    ASSERT_EQ(region.has_value(), hole.has_value());
    if (!region.has_value()) return;
    EXPECT_EQ(region->begin, *hole) << "not the first fit";
    EXPECT_EQ(region->rows, RegionPool::RoundUp(rows));
    bitmap_.Mark(*region, ++marks_);
    out_.push_back({marks_, *region});
  }
  void FreeOne() {
    if (out_.empty()) return;
    const size_t i = rng_.Below(out_.size());
    pool_.Free(out_[i].second);
    bitmap_.Mark(out_[i].second, 0);
    out_.erase(out_.begin() + i);
  }
  void GrowOne() {
    if (out_.empty()) return;
    auto& [mark, region] = out_[rng_.Below(out_.size())];
    const Region before = region;
    const int64_t rows = Size(), wanted = RegionPool::RoundUp(rows);
    const bool fits =
        wanted <= before.rows ||
        bitmap_.IsFree(before.begin + before.rows, before.begin + wanted);
    ASSERT_EQ(pool_.Grow(region, rows), fits);
    EXPECT_EQ(region.begin, before.begin);
    EXPECT_EQ(region.rows, fits ? std::max(wanted, before.rows) : before.rows);
    bitmap_.Mark(region, mark);
  }
  void ShrinkOne() {
    if (out_.empty()) return;
    auto& [mark, region] = out_[rng_.Below(out_.size())];
    bitmap_.Mark(region, 0);
    const int64_t before = region.rows, rows = Size();
    pool_.Shrink(region, rows);
    EXPECT_EQ(region.rows, std::min(before, RegionPool::RoundUp(rows)));
    bitmap_.Mark(region, mark);
  }
  void Compact() {
    const int64_t used = pool_.used();
    for (const RegionPool::Move& move : pool_.Compact()) {
      EXPECT_LT(move.to, move.from);
      for (auto& [mark, region] : out_) {
        if (region.begin != move.from) continue;
        bitmap_.Copy(move.from, move.to, region.rows);
        region.begin = move.to;
        break;
      }
    }
    std::fill(bitmap_.marks().begin() + used, bitmap_.marks().end(), 0);
  }

  Rng rng_;
  const int64_t rows_;
  RegionPool pool_;
  Bitmap bitmap_;
  int marks_ = 0;
  std::vector<std::pair<int, Region>> out_;
};

TEST(RegionPool, RandomOperationsDoWhatABitmapDoes) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    RandomOperations run(16 * (10 + static_cast<int64_t>(seed)), seed);
    for (int i = 0; i < 1000; ++i) {
      run.Step();
      run.Check();
      if (testing::Test::HasFatalFailure()) return;
    }
    run.FreeAll();
  }
}

TEST(RegionPool, OnlyWholeUnitsAreGivenOut) {
  RegionPool pool(16 * 4 + 15);
  EXPECT_EQ(pool.rows(), 64);
  EXPECT_EQ(pool.Allocate(1)->rows, 16);
  EXPECT_EQ(pool.Allocate(17)->rows, 32);
  EXPECT_FALSE(pool.Allocate(17).has_value());
  EXPECT_EQ(pool.Allocate(16)->begin, 48);
  EXPECT_EQ(pool.free(), 0);
}

TEST(RegionPoolDeathTest, ARegionThatIsNotOutIsNeverFreed) {
  RegionPool pool(64);
  const Region region = *pool.Allocate(16);
  EXPECT_DEATH(pool.Free({region.begin, 32}), "");
  pool.Free(region);
  EXPECT_DEATH(pool.Free(region), "");
}

}  // namespace
}  // namespace atod::engine
