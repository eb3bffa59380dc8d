#include "services/rollout/replay.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rollout/fakes.h"

namespace atod::rollout {
namespace {

using testing::HasSubstr;

// Acts by the noise key.
std::string Wanderer(const engine::EngineRequest& request) {
  const double u = NoiseUniform(request.noise);
  if (u < 0.2) return " wait";
  if (u < 0.4) return "oops";
  return absl::StrCat(" go", request.noise.turn);
}

class ReplayTest : public testing::Test {
 protected:
  v1::Trajectory Play(const v1::Trajectory& t, bool scores = true) {
    Replayer replayer(engine_, envs_, *tokenizer_, scores ? &teacher_ : nullptr,
                      200);
    auto played = replayer.Play(t);
    EXPECT_TRUE(played.ok()) << played.status();
    return *std::move(played);
  }

  // A trajectory that was played, with a replayed prefix and two teachers.
  v1::Trajectory Stored(uint32_t sample,
                        const std::string& layout = "windowed") {
    v1::Trajectory t;
    t.mutable_id()->set_run_id(absl::StrCat("life ", ++lives_));
    t.mutable_id()->set_step(4);
    t.mutable_id()->set_group(2);
    t.mutable_id()->set_sample(sample);
    t.mutable_id()->set_attempt(1);
    t.set_purpose(v1::TRAIN);
    t.set_env("corridor");
    t.set_split("train");
    t.mutable_task()->set_task_id("len-4");
    t.set_layout(layout);
    t.set_run_seed(11);
    t.set_max_turns(8);
    t.mutable_sampling()->set_temperature(1);
    t.mutable_sampling()->set_top_p(1);
    t.mutable_sampling()->set_max_tokens(20);
    if (layout == "windowed")
      t.add_turns()->set_action_text("first");  // not trainable
    v1::Span& span = *t.add_sequences()->add_spans();
    span.add_versions()->mutable_version()->set_root_hash("weights");
    span.add_teacher()->set_model("big");
    span.add_teacher()->set_model("bigger");
    return Play(t);
  }

  // A fresh name each time: request ids are used once.
  v1::Trajectory Renamed(v1::Trajectory t) {
    t.mutable_id()->set_run_id(absl::StrCat("life ", ++lives_));
    return t;
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = ByteTokenizer();
  FakeEngine engine_{Wanderer};
  FakeEnvs envs_;
  FakeTeacher teacher_;
  int lives_ = 0;
};

TEST_F(ReplayTest, ARecordSaysAllThatIsNeededToPlayItAgain) {
  for (uint32_t sample = 0; sample < 20; ++sample) {
    const v1::Trajectory stored = Stored(sample);
    ASSERT_GT(stored.turns_size(), 2);
    EXPECT_EQ(stored.sequences(0).spans(0).teacher_size(), 2);
    const v1::Trajectory again = Play(Renamed(stored));
    EXPECT_EQ(FirstDifference(stored, again), "") << sample;
    EXPECT_EQ(again.run_seed(), 11u);
    EXPECT_EQ(again.sequences(0).spans(0).versions(0).version().root_hash(),
              "weights");
    // Without a teacher there is nothing to compare of it.
    EXPECT_EQ(FirstDifference(stored, Play(Renamed(stored), false)), "");
  }
}

TEST_F(ReplayTest, TheFirstDifferenceIsNamed) {
  const v1::Trajectory stored = Stored(3);
  const auto difference = [&](auto change) {
    v1::Trajectory other = stored;
    change(other);
    return FirstDifference(other, stored);
  };
  EXPECT_EQ(difference([](auto&) {}), "");
  v1::Trajectory late = stored;
  late.set_ended_us(7);
  late.set_worker("another");
  late.mutable_turns(1)->set_env_us(99);
  EXPECT_EQ(FirstDifference(late, stored), "");
  const int last = stored.sequences_size() - 1;
  const auto span = [&](v1::Trajectory& t) -> v1::Span& {
    return *t.mutable_sequences(last)->mutable_spans(0);
  };
  const uint32_t turn = stored.sequences(last).spans(0).turn();
  EXPECT_THAT(difference([&](auto& t) {
                const float lp = span(t).rollout_logprobs(1);
                span(t).set_rollout_logprobs(1, std::nextafter(lp, 0.0f));
              }),
              HasSubstr(absl::StrCat("turn ", turn, ": rollout log-prob 1")));
  EXPECT_THAT(difference([&](auto& t) {
                const float lp = span(t).teacher(1).logprobs(0);
                span(t).mutable_teacher(1)->set_logprobs(
                    0, std::nextafter(lp, 0.0f));
              }),
              HasSubstr("teacher bigger 0"));
  EXPECT_THAT(difference([&](auto& t) {
                t.mutable_sequences(last)->set_tokens(span(t).begin() + 1, 99);
              }),
              HasSubstr("sampled token 1"));
  EXPECT_THAT(difference([&](auto& t) {
                t.mutable_sequences(last)->set_tokens(0, 99);
              }),
              HasSubstr("prompt token 0"));
  EXPECT_THAT(difference([&](auto& t) {
                t.mutable_turns(1)->set_executed_action("elsewhere");
              }),
              HasSubstr("turn 1: action"));
  EXPECT_THAT(
      difference([&](auto& t) { t.mutable_turns(2)->set_observation("x"); }),
      HasSubstr("turn 2: observation"));
  EXPECT_THAT(difference([&](auto& t) { t.mutable_outcome()->set_reward(3); }),
              HasSubstr("outcome"));
  EXPECT_THAT(difference([&](auto& t) { t.mutable_turns()->RemoveLast(); }),
              HasSubstr("turns: found"));
}

TEST_F(ReplayTest, OfAGrowingEpisodeTheTurnIsNamedThatDiffers) {
  const v1::Trajectory stored = Stored(3, "growing");
  ASSERT_EQ(stored.sequences_size(), 1);
  ASSERT_GT(stored.sequences(0).spans_size(), 2);
  EXPECT_EQ(FirstDifference(stored, Play(Renamed(stored))), "");
  const v1::Span& second = stored.sequences(0).spans(1);
  v1::Trajectory other = stored;
  other.mutable_sequences(0)->set_tokens(second.begin(), 99);
  EXPECT_THAT(FirstDifference(other, stored),
              HasSubstr("turn 1: sampled token 0: found"));
  other = stored;
  other.mutable_sequences(0)->set_tokens(second.begin() - 1, 99);
  EXPECT_THAT(FirstDifference(other, stored),
              HasSubstr("turn 1: prompt token"));
  other = stored;
  v1::Span& third = *other.mutable_sequences(0)->mutable_spans(2);
  third.set_rollout_logprobs(0, -0.5f);
  EXPECT_THAT(FirstDifference(other, stored),
              HasSubstr("turn 2: rollout log-prob 0"));
}

TEST_F(ReplayTest, OfAnErrorTheTurnsBeforeItAreCompared) {
  const v1::Trajectory whole = Stored(3);
  v1::Trajectory failed = whole;
  ASSERT_GT(whole.turns_size(), 3);
  failed.mutable_turns()->DeleteSubrange(3, whole.turns_size() - 3);
  failed.mutable_sequences()->DeleteSubrange(2, whole.sequences_size() - 2);
  failed.mutable_outcome()->set_done_reason(v1::ERROR);
  failed.mutable_outcome()->mutable_error()->set_kind("teacher");
  EXPECT_EQ(FirstDifference(failed, whole, true), "");
  EXPECT_NE(FirstDifference(failed, whole), "");
  // Neither score nor the environment's answer had come.
  v1::Turn& last = *failed.mutable_turns(2);
  last.clear_executed_action();
  last.clear_valid();
  failed.mutable_sequences(1)->mutable_spans(0)->mutable_teacher(0)->Clear();
  EXPECT_EQ(FirstDifference(failed, whole, true), "");
  last.set_action_text("another");
  failed.mutable_sequences(1)->set_tokens(0, 99);
  EXPECT_THAT(FirstDifference(failed, whole, true),
              HasSubstr("turn 2: prompt token 0"));
  // The learner keeps no tokens of an error.
  failed.clear_sequences();
  EXPECT_THAT(FirstDifference(failed, whole, true), HasSubstr("turn 2: text"));
  last.set_action_text(whole.turns(2).action_text());
  EXPECT_EQ(FirstDifference(failed, whole, true), "");
  v1::Trajectory shorter = whole;
  shorter.mutable_turns()->DeleteSubrange(2, whole.turns_size() - 2);
  EXPECT_THAT(FirstDifference(failed, shorter, true),
              HasSubstr("turns: found 2"));
}

TEST_F(ReplayTest, AnErrorInTheReplayIsItsOutcome) {
  const v1::Trajectory stored = Stored(3);
  envs_.FailNext({absl::NotFoundError("no such task")});
  const v1::Trajectory again = Play(Renamed(stored));
  EXPECT_EQ(again.outcome().error().kind(), "task");
  EXPECT_NE(FirstDifference(stored, again), "");
}

}  // namespace
}  // namespace atod::rollout
