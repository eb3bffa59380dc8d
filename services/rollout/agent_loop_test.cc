#include "services/rollout/agent_loop.h"

#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rollout/fakes.h"

namespace atod::rollout {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

template <typename Tokens>
std::string Text(const Tokens& tokens) {
  std::string text;
  for (const auto t : tokens) {
    text += static_cast<int32_t>(t) == kEndToken
                ? "$"
                : std::string(1, static_cast<char>(t));
  }
  return text;
}

// Acts by the noise key, so that equal keys give equal episodes: mostly steps,
// sometimes "wait", sometimes an invalid text.
std::string Wanderer(const engine::EngineRequest& request) {
  const double u = NoiseUniform(request.noise);
  if (u < 0.2) return " wait";
  if (u < 0.4) return "oops";
  return absl::StrCat(" go", request.noise.turn);
}

class AgentLoopTest : public ::testing::Test {
 protected:
  AgentLoopTest() { Start(); }

  void Start(size_t slots = 16, uint32_t max_context = 200) {
    loop_.emplace(engine_, envs_, *tokenizer_, &teacher_, clock_, registry_,
                  AgentLoop::Options{.slots = slots,
                                     .max_context = max_context,
                                     .nonce = absl::StrCat("life-", ++lives_),
                                     .retry_min = absl::Milliseconds(1),
                                     .retry_max = absl::Milliseconds(2)});
  }
  static Assignment Spec(uint32_t sample = 0, int length = 3) {
    Assignment spec;
    v1::Lease& lease = spec.lease;
    lease.set_lease_id(1 + sample);
    lease.set_step(4);
    lease.set_group(2);
    lease.set_purpose(v1::TRAIN);
    lease.set_env("corridor");
    lease.set_split("train");
    lease.set_task_id(absl::StrCat("len-", length));
    lease.set_run_seed(11);
    lease.mutable_sampling()->set_temperature(1);
    lease.mutable_sampling()->set_top_p(1);
    lease.mutable_sampling()->set_max_tokens(20);
    lease.set_max_turns(8);
    lease.set_layout("windowed");
    spec.sample = sample;
    spec.run_id = "run";
    return spec;
  }
  void Add(Assignment spec) {
    const absl::Status status = loop_->Add(std::move(spec));
    ASSERT_TRUE(status.ok()) << status;
  }
  std::vector<v1::Trajectory> Poll(absl::Duration wait = absl::ZeroDuration()) {
    auto records = loop_->Poll(wait);
    EXPECT_TRUE(records.ok()) << records.status();
    return *std::move(records);
  }
  // Polls until `count` records are out; sorted by sample.
  std::vector<v1::Trajectory> Finish(size_t count) {
    std::vector<v1::Trajectory> all;
    while (all.size() < count) {
      for (v1::Trajectory& r : Poll(absl::InfiniteDuration())) {
        all.push_back(std::move(r));
      }
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
      return a.id().sample() < b.id().sample();
    });
    return all;
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = ByteTokenizer();
  RealClock clock_;
  metrics::Registry registry_;
  FakeEngine engine_{Wanderer};
  FakeEnvs envs_;
  FakeTeacher teacher_;
  std::optional<AgentLoop> loop_;
  Rng rng_{3};
  int lives_ = 0;
};

class GoLoopTest : public AgentLoopTest {
 protected:
  GoLoopTest() {
    go_.emplace([](const engine::EngineRequest&) { return " go"; });
    Restart();
  }
  void Restart() {
    loop_.emplace(*go_, envs_, *tokenizer_, &teacher_, clock_, registry_,
                  AgentLoop::Options{.slots = 16,
                                     .max_context = 200,
                                     .nonce = absl::StrCat("go", ++lives_),
                                     .retry_min = absl::Milliseconds(1),
                                     .retry_max = absl::Milliseconds(2)});
  }
  ~GoLoopTest() override { loop_.reset(); }
  std::optional<FakeEngine> go_;
};

TEST_F(GoLoopTest, RecordHoldsTheTokensThatTheEngineSawAndSampled) {
  Add(Spec());
  const v1::Trajectory record = Finish(1)[0];
  ASSERT_FALSE(record.outcome().has_error()) << record.ShortDebugString();
  ASSERT_THAT(record.sequences(), SizeIs(3));
  EXPECT_EQ(Text(record.sequences(0).tokens()), "at > go$");
  EXPECT_EQ(Text(record.sequences(1).tokens()), "go|at go> go$");
  EXPECT_EQ(Text(record.sequences(2).tokens()), "go,go|at go+go> go$");
  for (size_t i = 0; i < 3; ++i) {
    const v1::Sequence& sequence = record.sequences(i);
    const v1::Span& s = sequence.spans(0);
    EXPECT_EQ(s.turn(), i);
    EXPECT_EQ(s.begin(), go_->seen[i].prompt.size());
    EXPECT_EQ(s.begin() + s.length(), sequence.tokens_size());
    EXPECT_EQ(s.length(), 4);
    ASSERT_THAT(s.rollout_logprobs(), SizeIs(4));
    EXPECT_EQ(s.rollout_logprobs(3), FakeEngine::LogProb(kEndToken, 3));
    EXPECT_EQ(s.finish(), v1::STOP);
    EXPECT_EQ(record.turns(i).action_text(), " go");
    EXPECT_EQ(record.turns(i).executed_action(), "go");
    EXPECT_TRUE(record.turns(i).valid());
    EXPECT_TRUE(record.turns(i).trainable());
    EXPECT_EQ(record.turns(i).prompt_tokens(), s.begin());
    EXPECT_EQ(record.turns(i).anchor_hash(),
              HashHex(absl::StrCat("place ", i)));
    EXPECT_EQ(go_->seen[i].noise.turn, i);
  }
  EXPECT_EQ(record.turns(1).observation(), "at go");
  EXPECT_EQ(go_->seen[0].noise.run_seed, 11);
  EXPECT_EQ(go_->seen[0].noise.step, 4);
  EXPECT_EQ(go_->seen[0].noise.group, 2);
  EXPECT_TRUE(record.outcome().success());
  EXPECT_EQ(record.outcome().reward(), 10);
  EXPECT_EQ(record.outcome().score(), 3);
  EXPECT_EQ(record.outcome().done_reason(), v1::WON);
  EXPECT_EQ(record.task().category(), "hall");
  EXPECT_EQ(envs_.living(), 0);
}

TEST_F(GoLoopTest, RolloutsOfOneTaskShareTheirFirstPromptAndNoOther) {
  Assignment first = Spec(), second = Spec(), other = Spec();
  second.sample = first.sample + 1;
  other.sample = first.sample + 2;
  other.lease.set_group(first.lease.group() + 1);
  for (const Assignment& a : {first, second, other}) Add(a);
  Finish(3);
  std::map<uint32_t, std::set<uint64_t>> groups;  // of first turns, by task
  for (const engine::EngineRequest& r : go_->seen) {
    if (r.noise.turn > 0) {
      EXPECT_EQ(r.group, 0u);
    } else {
      EXPECT_NE(r.group, 0u);
      groups[r.noise.group].insert(r.group);
    }
  }
  ASSERT_THAT(groups, SizeIs(2));
  for (const auto& [task, keys] : groups) EXPECT_THAT(keys, SizeIs(1));
  EXPECT_NE(*groups.begin()->second.begin(), *groups.rbegin()->second.begin());
}

TEST_F(GoLoopTest, AGrowingEpisodeIsOneSequenceOfWhatWasShownAndSampled) {
  Assignment spec = Spec();
  spec.lease.set_layout("growing");
  spec.lease.add_teachers("big");
  Add(spec);
  const v1::Trajectory record = Finish(1)[0];
  ASSERT_FALSE(record.outcome().has_error()) << record.ShortDebugString();
  EXPECT_EQ(record.layout(), "growing");
  ASSERT_THAT(record.sequences(), SizeIs(1));
  const v1::Sequence& sequence = record.sequences(0);
  EXPECT_EQ(Text(sequence.tokens()), "at > go$\nat go> go$\nat go+go> go$");
  ASSERT_THAT(sequence.spans(), SizeIs(3));
  for (int i = 0; i < 3; ++i) {
    const v1::Span& span = sequence.spans(i);
    const engine::EngineRequest& asked = go_->seen[i];
    EXPECT_EQ(span.turn(), i);
    EXPECT_EQ(span.begin(), asked.prompt.size());
    EXPECT_EQ(span.length(), 4);
    EXPECT_EQ(record.turns(i).prompt_tokens(), span.begin());
    EXPECT_TRUE(std::equal(asked.prompt.begin(), asked.prompt.end(),
                           sequence.tokens().begin()));
    // One session from the first turn to the last.
    EXPECT_NE(asked.session, 0u);
    EXPECT_EQ(asked.session, go_->seen[0].session);
    EXPECT_EQ(asked.noise.turn, i);
    ASSERT_THAT(span.teacher(), SizeIs(1));
    for (uint32_t k = 0; k < span.length(); ++k)
      EXPECT_EQ(span.teacher(0).logprobs(k),
                FakeTeacher::LogProb("big", sequence.tokens(span.begin() + k)));
  }
  EXPECT_THAT(go_->ended, ElementsAre(go_->seen[0].session));
  EXPECT_TRUE(record.outcome().success());
  EXPECT_EQ(registry_.Counter(metrics::kRolloutPromptTokens).Value(),
            sequence.tokens_size() - 3 * 4);
}

TEST_F(GoLoopTest, AGrowingEpisodeThatFillsItsContextIsOver) {
  loop_.emplace(
      *go_, envs_, *tokenizer_, &teacher_, clock_, registry_,
      AgentLoop::Options{.slots = 16, .max_context = 35, .nonce = "small"});
  Assignment spec = Spec();
  spec.lease.set_layout("growing");
  spec.lease.mutable_sampling()->set_max_tokens(10);
  Add(spec);
  const v1::Trajectory record = Finish(1)[0];
  EXPECT_FALSE(record.outcome().has_error());
  EXPECT_EQ(record.outcome().done_reason(), v1::LIMIT);
  EXPECT_FALSE(record.outcome().success());
  EXPECT_THAT(record.turns(), SizeIs(2));  // of 3: 18 tokens, and 11 do not fit
  EXPECT_EQ(Text(record.sequences(0).tokens()), "at > go$\nat go> go$");
  EXPECT_EQ(registry_.Counter(metrics::kRolloutContextEnds).Value(), 1);
  EXPECT_EQ(envs_.living(), 0);
}

TEST_F(GoLoopTest, AGrowingEpisodeGoesOnAtAServerThatRebuildsIt) {
  Assignment spec = Spec();
  spec.lease.set_layout("growing");
  Add(spec);
  const std::string whole = Text(Finish(1)[0].sequences(0).tokens());
  spec.sample = 1;
  Add(spec);
  Poll();  // the first response waits for the environment
  envs_.ForgetEpisodes();
  const v1::Trajectory record = Finish(1)[0];
  ASSERT_FALSE(record.outcome().has_error()) << record.ShortDebugString();
  EXPECT_EQ(Text(record.sequences(0).tokens()), whole);
}

TEST_F(GoLoopTest, HistoryWindowHoldsTheLastTurnsOnly) {
  Add(Spec(0, 5));
  const v1::Trajectory record = Finish(1)[0];
  ASSERT_THAT(record.sequences(), SizeIs(5));
  EXPECT_EQ(Text(record.sequences(4).tokens()), "go,go|at go+go+go+go> go$");
}

TEST_F(GoLoopTest, ReplayedTurnsAreContextAndNeverSampled) {
  Assignment spec = Spec(0, 4);
  for (int i = 0; i < 2; ++i) spec.lease.add_replay_actions("up");
  Add(spec);
  const v1::Trajectory record = Finish(1)[0];
  ASSERT_FALSE(record.outcome().has_error()) << record.ShortDebugString();
  ASSERT_THAT(record.turns(), SizeIs(4));
  EXPECT_FALSE(record.turns(0).trainable());
  EXPECT_FALSE(record.turns(1).trainable());
  EXPECT_EQ(record.turns(1).executed_action(), "up");
  EXPECT_EQ(record.turns(1).observation(), "at up");
  EXPECT_TRUE(record.turns(2).trainable());
  ASSERT_THAT(record.sequences(), SizeIs(2));
  EXPECT_EQ(record.sequences(0).spans(0).turn(), 2);
  EXPECT_EQ(Text(record.sequences(0).tokens()), "up,up|at up+up> go$");
  EXPECT_EQ(go_->seen[0].noise.turn, 2);
}

TEST_F(GoLoopTest, AnAlternativeContextGivesEveryTurnASecondPrompt) {
  Assignment spec = Spec(0, 2);
  Add(spec);
  spec.lease.set_context("go up");
  spec.sample = 1;
  Add(spec);
  const std::vector<v1::Trajectory> records = Finish(2);
  for (const v1::Trajectory& record : records) {
    ASSERT_FALSE(record.outcome().has_error()) << record.ShortDebugString();
    ASSERT_THAT(record.sequences(), SizeIs(2));
    for (const v1::Sequence& sequence : record.sequences()) {
      const std::vector<int32_t> prompt(
          sequence.tokens().begin(),
          sequence.tokens().begin() + sequence.spans(0).begin());
      if (record.id().sample() == 0) {
        EXPECT_TRUE(sequence.context_tokens().empty());
      } else {
        EXPECT_EQ(Text(sequence.context_tokens()), "go up\n" + Text(prompt));
      }
    }
  }
}

TEST_F(GoLoopTest, ResponseCutAtItsLimitIsDecodedWhole) {
  Assignment spec = Spec(0, 1);
  spec.lease.mutable_sampling()->set_max_tokens(2);
  Add(spec);
  const v1::Trajectory record = Finish(1)[0];
  EXPECT_EQ(record.sequences(0).spans(0).finish(), v1::LENGTH);
  EXPECT_EQ(record.turns(0).action_text(), " g");
}

TEST_F(AgentLoopTest, InvalidTextsAreFlagged) {
  for (uint32_t i = 0; i < 8; ++i) Add(Spec(i));
  size_t invalid = 0;
  for (const v1::Trajectory& record : Finish(8)) {
    for (const v1::Turn& turn : record.turns()) {
      EXPECT_EQ(turn.valid(), turn.action_text() != "oops");
      EXPECT_EQ(turn.admissible(), turn.executed_action() != "wait");
      invalid += !turn.valid();
    }
  }
  EXPECT_GT(invalid, 0);
}

// Everything in a trajectory that must not depend on who answered when.
std::string Essence(v1::Trajectory t) {
  t.clear_started_us();
  t.clear_ended_us();
  for (v1::Turn& turn : *t.mutable_turns()) {
    turn.clear_generate_us();
    turn.clear_env_us();
    turn.clear_teacher_us();
  }
  return t.DebugString();
}

TEST_F(AgentLoopTest, OrderOfRepliesChangesNothing) {
  const auto specs = [] {
    std::vector<Assignment> specs;
    for (uint32_t i = 0; i < 12; ++i) {
      specs.push_back(Spec(i, 1 + i % 5));
      specs.back().lease.add_teachers("big");
      specs.back().lease.add_teachers("small");
    }
    return specs;
  }();
  for (const Assignment& spec : specs) Add(spec);
  const std::vector<v1::Trajectory> calm = Finish(12);

  Start();
  envs_.Hold();
  teacher_.Hold();
  for (const Assignment& spec : specs) Add(spec);
  std::vector<v1::Trajectory> wild;
  while (wild.size() < 12) {
    if (rng_.Below(2) == 0) envs_.ReleaseOne(rng_);
    if (rng_.Below(3) == 0) {
      // Every second teacher call fails at first.
      teacher_.ReleaseOne(rng_, rng_.Below(2) == 0
                                    ? absl::UnavailableError("teacher died")
                                    : absl::OkStatus());
    }
    for (v1::Trajectory& r : Poll()) wild.push_back(std::move(r));
  }
  std::sort(wild.begin(), wild.end(), [](const auto& a, const auto& b) {
    return a.id().sample() < b.id().sample();
  });
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(Essence(calm[i]), Essence(wild[i]));
  }
}

TEST_F(GoLoopTest, FinishedTurnIsScoredWhileTheEpisodeGoesOn) {
  envs_.Hold();
  teacher_.Hold();
  Assignment spec = Spec();
  spec.lease.add_teachers("big");
  Add(spec);
  ASSERT_TRUE(envs_.ReleaseOne(rng_));  // the reset
  while (teacher_.waiting() == 0) EXPECT_THAT(Poll(), IsEmpty());
  // The environment has not answered turn 0 yet.
  const std::vector<teacher::TeacherRequest> seen = teacher_.seen();
  ASSERT_THAT(seen, SizeIs(1));
  EXPECT_EQ(Text(seen[0].tokens), "at > go$");
  EXPECT_EQ(seen[0].begin, 4);
  EXPECT_EQ(seen[0].length, 4);
  EXPECT_EQ(seen[0].model, "big");
}

TEST_F(GoLoopTest, SlotIsFreeWhileScoresAreMissing) {
  teacher_.Hold();
  Assignment spec = Spec();
  spec.lease.add_teachers("big");
  Add(spec);
  while (loop_->playing() > 0) EXPECT_THAT(Poll(), IsEmpty());
  EXPECT_EQ(loop_->living(), 1);
  EXPECT_EQ(loop_->free_slots(), 16);
  EXPECT_EQ(teacher_.waiting(), 3);
  while (teacher_.ReleaseOne(rng_)) {
  }
  const v1::Trajectory record = Finish(1)[0];
  for (const v1::Sequence& sequence : record.sequences()) {
    const v1::Span& s = sequence.spans(0);
    ASSERT_THAT(s.teacher(), SizeIs(1));
    EXPECT_THAT(s.teacher(0).logprobs(), SizeIs(s.length()));
    EXPECT_EQ(s.teacher(0).logprobs(3), FakeTeacher::LogProb("big", kEndToken));
  }
}

TEST_F(GoLoopTest, TeacherThatFailsForGoodFailsTheEpisodeOnly) {
  teacher_.Hold();
  Assignment spec = Spec(0);
  spec.lease.add_teachers("big");
  Add(spec);
  Add(Spec(1));
  while (teacher_.waiting() == 0) Poll();
  teacher_.ReleaseOne(rng_, absl::FailedPreconditionError("tokenizer"));
  const auto records = Finish(2);
  EXPECT_EQ(records[0].outcome().error().kind(), "teacher");
  EXPECT_EQ(records[0].outcome().error().message(), "tokenizer");
  EXPECT_EQ(records[1].outcome().error().kind(), "");
  EXPECT_FALSE(records[1].outcome().has_error());
  EXPECT_EQ(loop_->free_slots(), 16);
}

TEST_F(AgentLoopTest, DeadEnvironmentServerCostsNoEpisode) {
  for (uint32_t i = 0; i < 10; ++i) Add(Spec(i, 5));
  const std::vector<v1::Trajectory> calm = Finish(10);

  Start();
  const size_t resets = envs_.resets();
  for (uint32_t i = 0; i < 10; ++i) Add(Spec(i, 5));
  std::vector<v1::Trajectory> rough;
  for (int round = 0; rough.size() < 10; ++round) {
    if (round == 2 || round == 5) {
      envs_.ForgetEpisodes();
      envs_.FailNext({absl::UnavailableError("down"),
                      absl::DeadlineExceededError("late"),
                      absl::UnavailableError("down")});
    }
    for (v1::Trajectory& r : Poll(absl::Milliseconds(1))) {
      rough.push_back(std::move(r));
    }
  }
  std::sort(rough.begin(), rough.end(), [](const auto& a, const auto& b) {
    return a.id().sample() < b.id().sample();
  });
  EXPECT_GT(envs_.resets(), resets + 10);
  for (size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(Essence(calm[i]), Essence(rough[i]));
  }
}

TEST_F(GoLoopTest, UnknownTaskFailsTheEpisodeOnly) {
  envs_.FailNext({absl::NotFoundError("task_id: no such task")});
  Add(Spec(0));
  Add(Spec(1));
  const auto records = Finish(2);
  EXPECT_EQ(records[0].outcome().error().kind(), "task");
  EXPECT_FALSE(records[1].outcome().has_error());
}

TEST_F(GoLoopTest, FaultsOfAnEnvironmentAreNotRetriedForEver) {
  const absl::Status fault = absl::InternalError("game.tw-pddl: broken");
  envs_.FailNext(std::vector<absl::Status>(4, fault));
  Add(Spec(0));
  EXPECT_FALSE(Finish(1)[0].outcome().has_error());  // it passed
  envs_.FailNext(std::vector<absl::Status>(5, fault));
  Add(Spec(1));
  const v1::Trajectory record = Finish(1)[0];
  EXPECT_EQ(record.outcome().error().kind(), "task");
  EXPECT_EQ(record.outcome().error().message(), "game.tw-pddl: broken");
  // A server that is away is waited for.
  envs_.FailNext(std::vector<absl::Status>(20, absl::UnavailableError("")));
  Add(Spec(2));
  EXPECT_FALSE(Finish(1)[0].outcome().has_error());
}

TEST_F(GoLoopTest, PromptOverTheLimitEndsTheEpisodeWithAnError) {
  loop_.emplace(
      *go_, envs_, *tokenizer_, &teacher_, clock_, registry_,
      AgentLoop::Options{.slots = 1, .max_context = 32, .nonce = "n"});
  Add(Spec(0, 9));
  const v1::Trajectory record = Finish(1)[0];
  // "go|at go>" has 9 tokens and fits the 12 that 20 for the response leave;
  // "go,go|at go+go>" does not.
  EXPECT_EQ(record.outcome().done_reason(), v1::ERROR);
  EXPECT_EQ(record.outcome().error().kind(), "prompt");
  EXPECT_EQ(record.outcome().error().message(),
            "turn 2: prompt set corridor: found 15 tokens, expected at most "
            "12; model.max_context is 32, of which sampling.train.max_tokens "
            "takes 20: raise the one or lower the other");
  EXPECT_THAT(record.turns(), SizeIs(2));
  EXPECT_THAT(record.sequences(), SizeIs(2));
  EXPECT_FALSE(record.outcome().success());
}

TEST_F(GoLoopTest, APromptOverItsSetsOwnLimitIsNotBlamedOnTheContext) {
  envs::EnvDescription small = FakeEnvs::Corridor();
  small.prompt.max_prompt_tokens = 9;
  envs_.set_description(small);
  Add(Spec(0, 9));
  EXPECT_EQ(Finish(1)[0].outcome().error().message(),
            "turn 2: prompt set corridor: found 15 tokens, expected at most 9");
}

TEST_F(GoLoopTest, ContextOverTheLimitEndsTheEpisodeWithAnError) {
  envs::EnvDescription cut = FakeEnvs::Corridor();
  cut.prompt.overflow = PromptSpec::Overflow::kCutLeft;
  envs_.set_description(cut);
  loop_.emplace(
      *go_, envs_, *tokenizer_, &teacher_, clock_, registry_,
      AgentLoop::Options{.slots = 1, .max_context = 32, .nonce = "n"});
  Assignment spec = Spec(0, 9);
  spec.lease.set_context("go up go up go up go up");
  Add(spec);
  const v1::Trajectory record = Finish(1)[0];
  EXPECT_EQ(record.outcome().done_reason(), v1::ERROR);
  EXPECT_FALSE(record.outcome().success());
}

TEST_F(GoLoopTest, PromptOverTheLimitIsCutWhereTheSpecSaysSo) {
  envs::EnvDescription cut = FakeEnvs::Corridor();
  cut.prompt.overflow = PromptSpec::Overflow::kCutLeft;
  envs_.set_description(cut);
  loop_.emplace(
      *go_, envs_, *tokenizer_, &teacher_, clock_, registry_,
      AgentLoop::Options{.slots = 1, .max_context = 32, .nonce = "n"});
  Add(Spec(0, 3));
  const v1::Trajectory record = Finish(1)[0];
  ASSERT_THAT(record.sequences(), SizeIs(3));
  EXPECT_EQ(Text(record.sequences(2).tokens()), "go|at go+go> go$");
  EXPECT_EQ(record.turns(2).cut_tokens(), 3);
  EXPECT_EQ(record.turns(2).prompt_tokens(), 12);
  EXPECT_EQ(registry_.Counter(metrics::kRolloutCutTokens).Value(), 3);
}

TEST_F(GoLoopTest, TurnLimitEndsTheEpisode) {
  Assignment spec = Spec(0, 9);
  spec.lease.set_max_turns(4);
  Add(spec);
  EXPECT_THAT(Finish(1)[0].turns(), SizeIs(4));
  // The environment's default limit holds even when it does not keep to it.
  spec.lease.set_max_turns(0);
  Add(spec);
  const v1::Trajectory record = Finish(1)[0];
  EXPECT_THAT(record.turns(), SizeIs(6));
  EXPECT_EQ(record.outcome().done_reason(), v1::LIMIT);
}

TEST_F(GoLoopTest, ADescriptionThatCannotBeHadYetIsAskedForAgain) {
  for (const auto code :
       {absl::StatusCode::kUnavailable, absl::StatusCode::kDeadlineExceeded,
        absl::StatusCode::kInternal, absl::StatusCode::kCancelled}) {
    envs_.FailDescribe(absl::Status(code, "not yet"));
    EXPECT_EQ(loop_->Add(Spec()), absl::UnavailableError("not yet"));
    EXPECT_LT(loop_->env_silence().since, absl::InfiniteFuture());
  }
  envs_.FailDescribe(absl::UnimplementedError("no EnvService"));
  EXPECT_EQ(loop_->Reach("corridor"),
            absl::UnimplementedError("no EnvService"));
  envs_.FailDescribe(absl::OkStatus());
  EXPECT_TRUE(loop_->Reach("corridor").ok());
  EXPECT_EQ(loop_->env_silence().since, absl::InfiniteFuture());
}

TEST_F(AgentLoopTest, SpecsThatCannotBePlayedAreRefused) {
  const auto refused = [&](auto&& change) {
    Assignment spec = Spec();
    change(spec);
    return loop_->Add(spec);
  };
  EXPECT_THAT(refused([](auto& s) { s.lease.set_layout("packed"); }).message(),
              HasSubstr("layout: found packed"));
  for (const bool context : {false, true}) {
    const auto growing = [&](auto& s) {
      s.lease.set_layout("growing");
      context ? s.lease.set_context("x") : s.lease.add_replay_actions("up");
    };
    EXPECT_THAT(refused(growing).message(), HasSubstr("layout growing: found"));
  }
  EXPECT_THAT(refused([](auto& s) {
                s.lease.mutable_sampling()->set_max_tokens(0);
              }).message(),
              HasSubstr("max_tokens"));
  EXPECT_THAT(refused([](auto& s) {
                s.lease.mutable_sampling()->set_max_tokens(200);
              }).message(),
              HasSubstr("max_tokens"));
  EXPECT_EQ(refused([](auto& s) { s.lease.set_env("chess"); }).code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(loop_->living(), 0);
  for (uint32_t i = 0; i < 16; ++i) Add(Spec(i));
  EXPECT_EQ(refused([](auto&) {}).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(GoLoopTest, AServerWithOtherGamesIsNoFaultOfTheTask) {
  const auto refused = [&](auto&& change) {
    Restart();
    Assignment spec = Spec();
    change(spec);
    Add(spec);
    absl::StatusOr<std::vector<v1::Trajectory>> result =
        loop_->Poll(absl::InfiniteDuration());
    while (result.ok() && result->empty())
      result = loop_->Poll(absl::InfiniteDuration());
    return result.status();
  };
  const absl::Status content =
      refused([](auto& s) { s.lease.set_content_hash("other"); });
  EXPECT_EQ(content.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(content.message(), HasSubstr("found hash-of-train"));
  EXPECT_EQ(refused([](auto& s) { s.lease.set_split("test"); }).code(),
            absl::StatusCode::kFailedPrecondition);
  for (const absl::Status& status :
       {absl::UnimplementedError("no EnvService here"),
        absl::PermissionDeniedError("not for you"),
        absl::UnauthenticatedError("who are you")}) {
    envs_.FailNext({status});
    EXPECT_EQ(refused([](auto&) {}),
              absl::FailedPreconditionError(status.message()));
  }
  EXPECT_TRUE(
      refused([](auto& s) { s.lease.set_content_hash("hash-of-train"); }).ok());
}

TEST_F(GoLoopTest, SilenceLastsFromTheFirstUnansweredCallToTheNextAnswer) {
  FakeClock clock;
  loop_.emplace(*go_, envs_, *tokenizer_, &teacher_, clock, registry_,
                AgentLoop::Options{.slots = 2,
                                   .max_context = 200,
                                   .nonce = "silence",
                                   .retry_min = absl::Seconds(1),
                                   .retry_max = absl::Seconds(1)});
  EXPECT_EQ(loop_->env_silence().since, absl::InfiniteFuture());
  envs_.FailNext({absl::UnavailableError("down"),
                  absl::DeadlineExceededError("late"),
                  absl::InternalError("an answer")});
  Add(Spec(0));
  const absl::Time begin = clock.Now();
  Poll();
  EXPECT_EQ(loop_->env_silence().since, begin);
  clock.Advance(absl::Seconds(1));
  Poll();
  EXPECT_EQ(loop_->env_silence().since, begin);
  EXPECT_EQ(loop_->env_silence().status.message(), "late");
  clock.Advance(absl::Seconds(1));
  Poll();
  EXPECT_EQ(loop_->env_silence().since, absl::InfiniteFuture());
}

TEST_F(GoLoopTest, CancelledLeaseGivesNoRecordAndKeepsNothing) {
  envs_.Hold();
  Assignment late = Spec(0);
  late.lease.set_lease_id(8);
  Add(late);  // its reset is not answered yet
  Add(Spec(1));
  loop_->Cancel(8);
  EXPECT_EQ(loop_->playing(), 1);
  std::vector<v1::Trajectory> records;
  while (records.empty()) {
    envs_.ReleaseOne(rng_);
    records = Poll();
  }
  EXPECT_EQ(records[0].id().sample(), 1);
  while (envs_.ReleaseOne(rng_)) Poll();
  EXPECT_EQ(loop_->living(), 0);
  EXPECT_EQ(envs_.living(), 0);
}

TEST_F(GoLoopTest, LeaseCancelledInTheEngineGivesNoRecord) {
  go_->paused = true;
  Add(Spec(0));
  while (!go_->has_work()) Poll();
  loop_->Cancel(1);
  EXPECT_FALSE(go_->has_work());
  go_->paused = false;
  EXPECT_THAT(Poll(), IsEmpty());
  EXPECT_EQ(loop_->living(), 0);
  EXPECT_EQ(envs_.living(), 0);
}

TEST_F(AgentLoopTest, WakeEndsAPollThatWaits) {
  std::thread waker([this] { loop_->Wake(); });
  EXPECT_THAT(Poll(absl::InfiniteDuration()), IsEmpty());
  waker.join();
}

TEST_F(GoLoopTest, BrokenEngineIsReported) {
  Add(Spec(0));
  go_->broken = true;
  absl::StatusOr<std::vector<v1::Trajectory>> result =
      std::vector<v1::Trajectory>();
  while (result.ok()) result = loop_->Poll(absl::InfiniteDuration());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInternal);
}

TEST_F(GoLoopTest, RepliesThatOutliveTheLoopAreDropped) {
  envs_.Hold();
  Add(Spec(0));
  loop_.reset();
  EXPECT_TRUE(envs_.ReleaseOne(rng_));
}

}  // namespace
}  // namespace atod::rollout
