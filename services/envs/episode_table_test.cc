#include "services/envs/episode_table.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/envs/fake_environment.h"

namespace atod::envs {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class Counts : public EpisodeObserver {
 public:
  void OnStart(const std::string&) override { ++started; }
  void OnStep(const std::string&, absl::Duration) override { ++steps; }
  void OnExpire(size_t n) override { expired += n; }
  void OnSize(size_t n) override { size = n; }
  size_t started = 0, steps = 0, expired = 0, size = 0;
};

class EpisodeTableTest : public ::testing::Test {
 protected:
  static ResetRequest Request(const std::string& id,
                              const std::string& task = "t") {
    return {.request_id = id,
            .env = "fake",
            .options = {.split = "train", .task_id = task},
            .replay_actions = {}};
  }
  absl::StatusOr<StepResult> Act(const std::string& id, uint32_t turn,
                                 const std::string& action) {
    return table_.Step(id, turn, {.text = action, .is_action = true});
  }

  FakeClock clock_;
  Counts counts_;
  EpisodeTable table_{{{"fake", std::make_shared<FakeEnvironment>()}},
                      absl::Seconds(60),
                      &clock_,
                      &counts_};
};

TEST_F(EpisodeTableTest, TheSameRequestIsTheSameEpisode) {
  const auto a = table_.Reset(Request("r"));
  const auto b = table_.Reset(Request("r"));
  const auto c = table_.Reset(Request("other"));
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  EXPECT_EQ(a->episode_id, b->episode_id);
  EXPECT_NE(a->episode_id, c->episode_id);
  EXPECT_EQ(counts_.started, 2u);
}

TEST_F(EpisodeTableTest, ATurnIsPlayedOnceHoweverOftenItIsAsked) {
  const std::string id = table_.Reset(Request("r"))->episode_id;
  ASSERT_EQ(Act(id, 0, "a")->observation.text, "t:a");
  ASSERT_EQ(Act(id, 1, "b")->observation.text, "t:a,b");
  EXPECT_EQ(Act(id, 1, "c")->observation.text, "t:a,b");
  EXPECT_EQ(Act(id, 2, "c")->observation.text, "t:a,b,c");
  EXPECT_EQ(counts_.steps, 3u);
}

TEST_F(EpisodeTableTest, AnotherTurnThanTheNextIsRefused) {
  const std::string id = table_.Reset(Request("r"))->episode_id;
  EXPECT_TRUE(absl::IsFailedPrecondition(Act(id, 1, "a").status()));
  ASSERT_TRUE(Act(id, 0, "a").ok());
  ASSERT_TRUE(Act(id, 1, "b").ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Act(id, 0, "a").status()));
  EXPECT_TRUE(absl::IsNotFound(Act("nobody", 0, "a").status()));
}

TEST_F(EpisodeTableTest, ReplayedActionsCountAsTurns) {
  ResetRequest request = Request("r");
  request.replay_actions = {"a", "b"};
  const auto reset = table_.Reset(request);
  ASSERT_TRUE(reset.ok());
  EXPECT_EQ(reset->first.text, "t:");
  ASSERT_EQ(reset->replayed.size(), 2u);
  EXPECT_EQ(reset->replayed[1].observation.text, "t:a,b");
  EXPECT_EQ(Act(reset->episode_id, 1, "x")->observation.text, "t:a,b");
  EXPECT_EQ(Act(reset->episode_id, 2, "c")->observation.text, "t:a,b,c");
}

TEST_F(EpisodeTableTest, AnEpisodeNobodyAsksAboutIsFreed) {
  const std::string idle = table_.Reset(Request("idle"))->episode_id;
  const std::string busy = table_.Reset(Request("busy"))->episode_id;
  for (int turn = 0; turn < 4; ++turn) {
    clock_.Advance(absl::Seconds(30));
    ASSERT_TRUE(Act(busy, turn, "a").ok());
  }
  EXPECT_TRUE(absl::IsNotFound(Act(idle, 0, "a").status()));
  EXPECT_EQ(table_.size(), 1u);
  EXPECT_EQ(counts_.expired, 1u);
  EXPECT_EQ(counts_.size, 1u);
  // Its request starts anew.
  EXPECT_NE(table_.Reset(Request("idle"))->episode_id, idle);
}

TEST_F(EpisodeTableTest, KeepAliveProlongsAndNamesTheUnknown) {
  const std::string id = table_.Reset(Request("r"))->episode_id;
  for (int i = 0; i < 4; ++i) {
    clock_.Advance(absl::Seconds(30));
    EXPECT_THAT(table_.KeepAlive({id, "nobody"}), ElementsAre("nobody"));
  }
  EXPECT_TRUE(Act(id, 0, "a").ok());
}

TEST_F(EpisodeTableTest, CloseFreesAtOnce) {
  const std::string id = table_.Reset(Request("r"))->episode_id;
  table_.Close({id, "nobody"});
  EXPECT_EQ(table_.size(), 0u);
  EXPECT_THAT(table_.KeepAlive({id}), ElementsAre(id));
}

TEST_F(EpisodeTableTest, AnEpisodeThatCannotStartLeavesNothing) {
  EXPECT_TRUE(absl::IsNotFound(table_.Reset(Request("r", "u")).status()));
  ResetRequest other = Request("r");
  other.env = "mars";
  EXPECT_TRUE(absl::IsFailedPrecondition(table_.Reset(other).status()));
  EXPECT_EQ(table_.size(), 0u);
  EXPECT_TRUE(table_.Reset(Request("r")).ok());
}

TEST_F(EpisodeTableTest, StepsAfterTheEndReturnTheLastResult) {
  const std::string id = table_.Reset(Request("r"))->episode_id;
  ASSERT_TRUE(Act(id, 0, "win")->observation.done);
  const auto after = Act(id, 1, "more");
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->observation.text, "t:win");
  EXPECT_EQ(after->observation.turn_index, 1u);
}

}  // namespace
}  // namespace atod::envs
