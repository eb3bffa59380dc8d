#include "services/learner/algorithm/weights/registry.h"

#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/algorithm/advantages_for_test.h"
#include "services/learner/algorithm/batch_for_test.h"

namespace atod::learner {
namespace {

Advantages Compute(const std::vector<TestTrajectory>& trajectories,
                   const WeightPiece& piece) {
  Settings options;
  options["profile"] = "paper";
  options["weights"] = std::string(piece.name);
  options["weight_parameter"] = .5;
  return Compute(MakeBatch(trajectories), options, 1);
}

TEST(WeightPieces, HaveNamesOfTheirOwn) {
  std::set<std::string_view> names;
  for (const WeightPiece& piece : WeightPieces()) {
    EXPECT_TRUE(names.insert(piece.name).second) << piece.name;
    EXPECT_EQ(FindWeightPiece(std::string(piece.name))->weigh, piece.weigh);
  }
  EXPECT_THAT(std::string(FindWeightPiece("best").status().message()),
              testing::HasSubstr("algorithm.weights: found \"best\", expected "
                                 "one of: tdur, one, "));
}

TEST(WeightPieces, AreAtLeastZeroAndZeroWithoutTokens) {
  Rng rng(1);
  const auto trajectories = RandomTrajectories(rng, 3, 4);
  const StepBatch batch = MakeBatch(trajectories);
  for (const WeightPiece& piece : WeightPieces()) {
    const Advantages a = Compute(trajectories, piece);
    EXPECT_EQ(a.token_w.size(), piece.per_token ? batch.num_tokens() : 0u);
    for (int k = 0; k < batch.num_turns(); ++k) {
      EXPECT_GE(a.w[k], 0) << piece.name;
      if (batch.token_begin[k] == batch.token_begin[k + 1]) {
        EXPECT_EQ(a.w[k], 0) << piece.name;
      }
    }
  }
}

// Nothing outside of a weight's scope changes it.
TEST(WeightPieces, DependOnNoMoreThanTheirScope) {
  Rng rng(2);
  const auto before = RandomTrajectories(rng, 2, 4);
  // The first trajectory stays; its group, the rest, and its own later turns
  // change in turn.
  auto others = before, group = before, turns = before;
  const auto replace = RandomTrajectories(rng, 2, 4);
  for (size_t i = 4; i < 8; ++i) others[i].turns = replace[i].turns;
  for (size_t i = 1; i < 4; ++i) {
    group[i].turns = replace[i].turns;
    group[i].reward = replace[i].reward + 3;
  }
  turns[0].turns.resize(1);
  turns[0].turns.push_back({{-9}, {-1}});
  for (const WeightPiece& piece : WeightPieces()) {
    const auto first = [&](const std::vector<TestTrajectory>& batch, int n) {
      std::vector<double> w = Compute(batch, piece).w;
      w.resize(n);
      return w;
    };
    const int n = static_cast<int>(before[0].turns.size());
    if (piece.scope <= WeightScope::kGroup) {
      EXPECT_EQ(first(others, n), first(before, n)) << piece.name;
    }
    if (piece.scope <= WeightScope::kTrajectory) {
      EXPECT_EQ(first(group, n), first(before, n)) << piece.name;
    }
    if (piece.scope <= WeightScope::kTurn) {
      EXPECT_EQ(first(turns, 1), first(before, 1)) << piece.name;
    }
  }
}

}  // namespace
}  // namespace atod::learner
