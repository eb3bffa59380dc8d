#include "services/learner/step_builder.h"

#include <algorithm>

#include "common/base/rng.h"
#include "common/device/cpu_device.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/algorithm/advantages.h"
#include "services/learner/episode_metrics.h"
#include "services/learner/recipe_for_test.h"

namespace atod::learner {
namespace {

using ::testing::ElementsAre;

// A windowed trajectory of `turns` turns; token t of turn k has log-prob
// -(k + 1) - t / 10, the teacher half of it.
v1::Trajectory Windowed(uint32_t group, uint32_t sample, int turns) {
  v1::Trajectory t;
  t.mutable_id()->set_step(3);
  t.mutable_id()->set_group(group);
  t.mutable_id()->set_sample(sample);
  t.set_purpose(v1::TRAIN);
  t.mutable_sampling()->set_temperature(1);
  t.mutable_outcome()->set_reward(group + 0.5f * sample);
  t.mutable_outcome()->set_success(sample == 0);
  t.mutable_outcome()->set_length(turns);
  t.mutable_task()->set_category(group == 0 ? "pick" : "heat");
  for (int k = 0; k < turns; ++k) {
    v1::Turn& turn = *t.add_turns();
    turn.set_index(k);
    turn.set_trainable(true);
    turn.set_valid(k != 1);
    turn.set_admissible(k == 0);
    turn.set_prompt_tokens(2);
    v1::Sequence& seq = *t.add_sequences();
    for (uint32_t i = 0; i < 5; ++i) seq.add_tokens(10 * k + i);
    v1::Span& span = *seq.add_spans();
    span.set_turn(k);
    span.set_begin(2);
    span.set_length(2);
    span.set_finish(k == 0 ? v1::LENGTH : v1::STOP);
    v1::TeacherScores& scores = *span.add_teacher();
    scores.set_model("teacher");
    for (int i = 0; i < 2; ++i) {
      span.add_rollout_logprobs(-(k + 1) - i / 10.0f);
      scores.add_logprobs((-(k + 1) - i / 10.0f) / 2);
    }
  }
  return t;
}

std::vector<v1::Trajectory> Step() {
  std::vector<v1::Trajectory> out;
  for (uint32_t g = 0; g < 3; ++g)
    for (uint32_t s = 0; s < 2; ++s) out.push_back(Windowed(g, s, 1 + g + s));
  return out;
}

TEST(StepBuilderTest, ColumnsFollowTheCanonicalOrder) {
  const StepData data = BuildStepData(Step(), "teacher").value();
  const StepBatch& b = data.batch;
  EXPECT_THAT(b.trajectory_id, ElementsAre("3/0/0", "3/0/1", "3/1/0", "3/1/1",
                                           "3/2/0", "3/2/1"));
  EXPECT_THAT(b.group, ElementsAre(0, 0, 1, 1, 2, 2));
  EXPECT_THAT(b.turn_begin, ElementsAre(0, 1, 3, 5, 8, 11, 15));
  EXPECT_EQ(b.num_tokens(), 30);
  EXPECT_EQ(b.rollout_logprob.size(), 30u);
  EXPECT_EQ(b.teacher_logprob.size(), 30u);
  for (size_t i = 0; i < data.sequences.size(); ++i) {
    const TrainSequence& s = data.sequences[i];
    EXPECT_EQ(s.tokens.size(), 4u) << "cut after the last sampled token";
    EXPECT_EQ(s.spans[0].row, static_cast<int32_t>(2 * i));
  }
}

TEST(StepBuilderTest, TheOrderOfArrivalChangesNothing) {
  std::vector<v1::Trajectory> step = Step();
  const StepData want = BuildStepData(step, "teacher").value();
  Rng rng(4);
  for (int i = 0; i < 10; ++i) {
    rng.Shuffle(step);
    // A worker may also list the turns' sequences in another order.
    for (v1::Trajectory& t : step)
      std::reverse(t.mutable_sequences()->pointer_begin(),
                   t.mutable_sequences()->pointer_end());
    const StepData got = BuildStepData(step, "teacher").value();
    EXPECT_EQ(got.batch.trajectory_id, want.batch.trajectory_id);
    EXPECT_EQ(got.batch.rollout_logprob, want.batch.rollout_logprob);
    EXPECT_EQ(got.batch.teacher_logprob, want.batch.teacher_logprob);
    EXPECT_EQ(got.batch.reward, want.batch.reward);
    ASSERT_EQ(got.sequences.size(), want.sequences.size());
    for (size_t s = 0; s < got.sequences.size(); ++s) {
      EXPECT_EQ(got.sequences[s].tokens, want.sequences[s].tokens);
      EXPECT_EQ(got.sequences[s].spans[0].row, want.sequences[s].spans[0].row);
    }
  }
}

TEST(StepBuilderTest, AGrowingSequenceGivesTheSameColumns) {
  v1::Trajectory windowed = Windowed(0, 0, 3), growing = windowed;
  growing.clear_sequences();
  v1::Sequence& all = *growing.add_sequences();
  for (const v1::Sequence& s : windowed.sequences()) {
    v1::Span& span = *all.add_spans();
    span = s.spans(0);
    span.set_begin(all.tokens_size() + s.spans(0).begin());
    for (const uint32_t token : s.tokens()) all.add_tokens(token);
  }
  const StepData a = BuildStepData({windowed}, "teacher").value();
  const StepData b = BuildStepData({growing}, "teacher").value();
  EXPECT_EQ(a.batch.rollout_logprob, b.batch.rollout_logprob);
  EXPECT_EQ(a.batch.token_begin, b.batch.token_begin);
  ASSERT_EQ(b.sequences.size(), 1u);
  EXPECT_EQ(b.sequences[0].spans.size(), 3u);
}

TEST(StepBuilderTest, ReplayedAndEmptyTurnsHaveNoRows) {
  v1::Trajectory t = Windowed(0, 0, 3);
  t.mutable_turns(0)->set_trainable(false);
  t.mutable_sequences(2)->clear_spans();
  const StepData data = BuildStepData({t}, "teacher").value();
  EXPECT_THAT(data.batch.turn_index, ElementsAre(1, 2));
  EXPECT_THAT(data.batch.token_begin, ElementsAre(0, 2, 2));
  EXPECT_EQ(data.sequences.size(), 1u);
}

// TCOD's prefix: the step is as if only the student's turns had been played.
// Nothing of them reaches the trainer, so no gradient does.
TEST(StepBuilderTest, ReplayedTurnsChangeNothingOfTheOthers) {
  Rng rng(11);
  for (int round = 0; round < 20; ++round) {
    std::vector<v1::Trajectory> replayed, played;
    for (uint32_t g = 0; g < 4; ++g) {
      const int turns = 1 + static_cast<int>(rng.Below(6));
      const int prefix = static_cast<int>(rng.Below(turns));
      v1::Trajectory t = Windowed(g / 2, g % 2, turns);
      v1::Trajectory alone = t;
      for (int k = 0; k < prefix; ++k) {
        t.mutable_turns(k)->set_trainable(false);
        t.mutable_turns(k)->set_valid(rng.Below(2) == 0);
        t.mutable_turns(k)->set_action_text("of the teacher");
      }
      // Half of the workers leave the sequences of replayed turns out.
      if (rng.Below(2) == 0) t.mutable_sequences()->DeleteSubrange(0, prefix);
      alone.mutable_turns()->DeleteSubrange(0, prefix);
      alone.mutable_sequences()->DeleteSubrange(0, prefix);
      replayed.push_back(std::move(t));
      played.push_back(std::move(alone));
    }
    const StepData a = BuildStepData(replayed, "teacher").value();
    const StepData b = BuildStepData(played, "teacher").value();
    EXPECT_EQ(a.batch.group, b.batch.group);
    EXPECT_EQ(a.batch.reward, b.batch.reward);
    EXPECT_EQ(a.batch.turn_begin, b.batch.turn_begin);
    EXPECT_EQ(a.batch.token_begin, b.batch.token_begin);
    EXPECT_EQ(a.batch.turn_index, b.batch.turn_index);
    EXPECT_EQ(a.batch.valid_action, b.batch.valid_action);
    EXPECT_EQ(a.batch.rollout_logprob, b.batch.rollout_logprob);
    EXPECT_EQ(a.batch.teacher_logprob, b.batch.teacher_logprob);
    ASSERT_EQ(a.sequences.size(), b.sequences.size());
    for (size_t i = 0; i < a.sequences.size(); ++i) {
      EXPECT_EQ(a.sequences[i].tokens, b.sequences[i].tokens);
      ASSERT_EQ(a.sequences[i].spans.size(), b.sequences[i].spans.size());
      for (size_t s = 0; s < a.sequences[i].spans.size(); ++s)
        EXPECT_EQ(a.sequences[i].spans[s].row, b.sequences[i].spans[s].row);
    }
  }
}

// A third token behind the sampled two is no response: d = 1.5, h = 2.
TEST(StepBuilderTest, TokensOutsideTheSpanEnterNoStatistic) {
  v1::Trajectory t = Windowed(0, 0, 1);
  v1::Span& span = *t.mutable_sequences(0)->mutable_spans(0);
  v1::TeacherScores& scores = *span.mutable_teacher(0);
  span.set_rollout_logprobs(0, -1);
  span.set_rollout_logprobs(1, -3);
  scores.set_logprobs(0, -2);
  scores.set_logprobs(1, -1);
  StepData data = BuildStepData({t}, "teacher").value();
  data.batch.old_logprob = data.batch.rollout_logprob;
  const Recipe recipe = RecipeFor({});
  const auto a =
      ComputeAdvantages(data.batch, recipe, recipe.At(1), *MakeCpuDevice());
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_THAT(a->d, ElementsAre(1.5));
  EXPECT_THAT(a->h, ElementsAre(2));
}

TEST(StepBuilderTest, ContextPromptsHaveTheSameResponses) {
  v1::Trajectory t = Windowed(0, 0, 2);
  for (v1::Sequence& s : *t.mutable_sequences())
    for (const uint32_t token : {7u, 8u, 9u}) s.add_context_tokens(token);
  const StepData data = BuildStepData({t}, "teacher").value();
  ASSERT_EQ(data.context_sequences.size(), data.sequences.size());
  for (size_t i = 0; i < data.sequences.size(); ++i) {
    const TrainSequence& plain = data.sequences[i];
    const TrainSequence& context = data.context_sequences[i];
    EXPECT_EQ(context.spans[0].row, plain.spans[0].row);
    EXPECT_EQ(context.spans[0].begin, 3u);
    EXPECT_EQ(
        std::vector<int32_t>(context.tokens.begin() + 3, context.tokens.end()),
        std::vector<int32_t>(plain.tokens.begin() + plain.spans[0].begin,
                             plain.tokens.end()));
  }
}

TEST(StepBuilderTest, AMissingTeacherIsNamed) {
  const auto data = BuildStepData(Step(), "other");
  EXPECT_THAT(data.status().message(), testing::HasSubstr("other"));
  EXPECT_TRUE(BuildStepData(Step(), "").value().batch.teacher_logprob.empty());
}

TEST(EpisodeMetricsTest, MeansAreOverEpisodesTurnsAndResponses) {
  const auto m = EpisodeMetrics(Step());
  EXPECT_DOUBLE_EQ(m.at("episode/success_rate"), 0.5);
  EXPECT_DOUBLE_EQ(m.at("episode/success_rate/pick"), 0.5);
  EXPECT_DOUBLE_EQ(m.at("episode/reward"), 1.25);
  EXPECT_DOUBLE_EQ(m.at("episode/length"), 15.0 / 6);
  EXPECT_DOUBLE_EQ(m.at("episode/valid_action_ratio"), 10.0 / 15);
  EXPECT_DOUBLE_EQ(m.at("episode/admissible_ratio"), 6.0 / 15);
  EXPECT_DOUBLE_EQ(m.at("response_length/mean"), 2);
  EXPECT_DOUBLE_EQ(m.at("response_length/clip_ratio"), 6.0 / 15);
  EXPECT_TRUE(EpisodeMetrics({}).empty());
}

TEST(EpisodeMetricsTest, TheTrackerKeepsBestAndMeanOfTheLast) {
  EvalTracker tracker(2);
  std::vector<bool> better;
  std::map<std::string, double> m;
  for (const double rate : {0.2, 0.6, 0.4}) {
    m = {{"val/success_rate", rate}};
    better.push_back(tracker.Add(m));
  }
  EXPECT_THAT(better, ElementsAre(true, true, false));
  EXPECT_DOUBLE_EQ(m.at("val/success_rate_best"), 0.6);
  EXPECT_DOUBLE_EQ(m.at("val/success_rate_mean_last"), 0.5);
}

}  // namespace
}  // namespace atod::learner
