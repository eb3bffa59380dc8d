#include "common/model/shared_prefix.h"

#include <algorithm>

#include "common/base/rng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::model {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// `shared` tokens of `family`, then `own` of its own; the last two are scored.
ScoredSequence Sequence(int family, int64_t shared, int64_t own,
                        uint64_t seed) {
  ScoredSequence s;
  for (int64_t i = 0; i < shared; ++i)
    s.tokens.push_back(static_cast<int32_t>(1000 * family + i));
  Rng rng(seed);
  for (int64_t i = 0; i < own; ++i)
    s.tokens.push_back(static_cast<int32_t>(500'000 + rng.Below(100'000)));
  s.spans = {{static_cast<uint32_t>(s.tokens.size() - 2), 2}};
  return s;
}

TEST(SharedPrefixTest, FamiliesAreFoundWhateverTheOrder) {
  const std::vector<ScoredSequence> batch = {
      Sequence(1, 100, 9, 1), Sequence(2, 70, 9, 2), Sequence(1, 100, 20, 3),
      Sequence(3, 40, 9, 4),  Sequence(2, 70, 5, 5), Sequence(1, 100, 7, 6)};
  const auto groups = FindSharedPrefixes(batch);
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].tokens, 96);  // whole cache units
  EXPECT_THAT(groups[0].members, ElementsAre(0, 2, 5));
  EXPECT_EQ(groups[1].tokens, 64);
  EXPECT_THAT(groups[1].members, ElementsAre(1, 4));
}

TEST(SharedPrefixTest, ShortOnesAndSequencesWithARegionStayAlone) {
  std::vector<ScoredSequence> batch = {Sequence(1, 60, 9, 1),
                                       Sequence(1, 60, 9, 2)};
  EXPECT_THAT(FindSharedPrefixes(batch), IsEmpty());
  EXPECT_EQ(FindSharedPrefixes(batch, 16).at(0).tokens, 48);
  batch[0].region = {0, 80};
  EXPECT_THAT(FindSharedPrefixes(batch, 16), IsEmpty());
}

TEST(SharedPrefixTest, EqualSequencesShareUpToTheirFirstScoredToken) {
  ScoredSequence s = Sequence(1, 200, 0, 1);
  s.spans = {{100, 5}, {150, 20}};
  const auto groups = FindSharedPrefixes(std::vector<ScoredSequence>{s, s});
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_EQ(groups[0].tokens, 96);
}

TEST(SharedPrefixTest, RandomBatchesKeepEveryPromise) {
  for (uint64_t seed = 1; seed < 300; ++seed) {
    Rng rng(seed);
    std::vector<ScoredSequence> batch;
    for (uint64_t i = rng.Below(12); i > 0; --i)
      batch.push_back(Sequence(
          static_cast<int>(rng.Below(3)), static_cast<int64_t>(rng.Below(150)),
          2 + static_cast<int64_t>(rng.Below(40)), rng.Below(4)));
    std::vector<int> groups_of(batch.size());
    for (const SharedPrefix& group : FindSharedPrefixes(batch)) {
      ASSERT_GE(group.tokens, 64);
      ASSERT_EQ(group.tokens % kCacheUnit, 0);
      ASSERT_GE(group.members.size(), 2u);
      const auto& first = batch[group.members[0]].tokens;
      for (const int32_t m : group.members) {
        ++groups_of[m];
        ASSERT_LT(group.tokens, batch[m].spans[0].begin);
        ASSERT_TRUE(std::equal(first.begin(), first.begin() + group.tokens,
                               batch[m].tokens.begin()));
      }
    }
    for (const int n : groups_of) ASSERT_LE(n, 1);
  }
}

}  // namespace
}  // namespace atod::model
