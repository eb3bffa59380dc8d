#include "services/rollout/diagnosis.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::rollout {
namespace {

// The log-prob of token id i is the i-th of a list.
class ListScorer final : public teacher::Scorer {
 public:
  explicit ListScorer(std::vector<float> logprobs)
      : logprobs_(std::move(logprobs)) {}
  absl::StatusOr<std::vector<teacher::ScoreResult>> Score(
      const std::vector<teacher::ScoreRequest>& requests,
      const teacher::ScoreOptions& options) override {
    temperatures.push_back(options.temperature);
    std::vector<teacher::ScoreResult> out;
    for (const teacher::ScoreRequest& r : requests) {
      teacher::ScoreResult& result = out.emplace_back();
      for (const teacher::TokenSpan& span : r.spans)
        for (uint32_t i = span.begin; i < span.begin + span.length; ++i)
          result.logprobs.push_back(logprobs_.at(r.tokens.at(i)));
    }
    return out;
  }
  std::vector<float> temperatures;

 private:
  const std::vector<float> logprobs_;
};

void AddTurn(v1::Trajectory& t, uint32_t turn,
             const std::vector<int32_t>& sampled) {
  v1::Sequence& s = *t.add_sequences();
  s.add_tokens(0);  // the prompt
  s.add_tokens(0);
  s.mutable_tokens()->Add(sampled.begin(), sampled.end());
  v1::Span& span = *s.add_spans();
  span.set_turn(turn);
  span.set_begin(2);
  span.set_length(static_cast<uint32_t>(sampled.size()));
}

// Spec vector V1: token ids 1.. in the order of its table.
v1::Trajectory FourTurns() {
  v1::Trajectory t;
  t.mutable_sampling()->set_temperature(1);
  AddTurn(t, 0, {1, 2});
  AddTurn(t, 1, {3});
  AddTurn(t, 2, {4, 5, 6, 7});
  AddTurn(t, 3, {8, 9});
  return t;
}
const std::vector<float> kStudent = {0,     -0.5,  -1,    -0.125, -0.25,
                                     -0.25, -0.25, -0.25, -0.5,   -0.5};
const std::vector<float> kTeacher = {0,    -0.25, -0.5, -2.125, -0.25,
                                     -0.5, -0.25, -0.5, -1,     -1.5};

TEST(Diagnose, GivesTheVectorsOfThePaper) {
  ListScorer student(kStudent), teacher(kTeacher);
  const auto turns = Diagnose({FourTurns()}, student, teacher, "paper");
  ASSERT_TRUE(turns.ok()) << turns.status();
  ASSERT_EQ(turns->size(), 4u);
  const double d[] = {3. / 8, 2, 1. / 8, 3. / 4};
  const double h[] = {3. / 4, 1. / 8, 1. / 4, 1. / 2};
  const double w[] = {1, 1, 1. / 5, 11. / 15};
  for (size_t k = 0; k < 4; ++k) {
    EXPECT_EQ((*turns)[k].turn, k);
    EXPECT_EQ((*turns)[k].samples, 1u);
    EXPECT_DOUBLE_EQ((*turns)[k].d, d[k]);
    EXPECT_DOUBLE_EQ((*turns)[k].h, h[k]);
    EXPECT_DOUBLE_EQ((*turns)[k].w, w[k]);
    EXPECT_EQ((*turns)[k].d_stderr, 0);
  }
}

TEST(Diagnose, CountsOnlyTrajectoriesThatReachATurn) {
  v1::Trajectory two = FourTurns();
  two.clear_sequences();
  AddTurn(two, 0, {8, 9});
  AddTurn(two, 1, {3});
  ListScorer student(kStudent), teacher(kTeacher);
  const auto turns = Diagnose({FourTurns(), two}, student, teacher, "default");
  ASSERT_TRUE(turns.ok()) << turns.status();
  ASSERT_EQ(turns->size(), 4u);
  EXPECT_EQ((*turns)[1].samples, 2u);
  EXPECT_EQ((*turns)[2].samples, 1u);
  // d of turn 0: 3/8 and 3/4.
  EXPECT_DOUBLE_EQ((*turns)[0].d, 9. / 16);
  EXPECT_NEAR((*turns)[0].d_stderr, 3. / 16, 1e-12);
  // Two turns are below the guard of profile default: w = 1 in both.
  EXPECT_DOUBLE_EQ((*turns)[0].w, 1);
}

TEST(Diagnose, LeavesOutTurnsWithoutTokensAndScoresAtTheirTemperature) {
  v1::Trajectory e = FourTurns();
  e.mutable_sampling()->set_temperature(0.5f);
  AddTurn(e, 4, {});
  ListScorer student(kStudent), teacher(kTeacher);
  const auto turns = Diagnose({e}, student, teacher, "paper");
  ASSERT_TRUE(turns.ok()) << turns.status();
  EXPECT_EQ(turns->size(), 4u);
  EXPECT_THAT(teacher.temperatures, testing::ElementsAre(0.5f));
}

}  // namespace
}  // namespace atod::rollout
