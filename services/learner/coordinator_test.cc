#include "services/learner/coordinator.h"

#include <set>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::learner {
namespace {

using ::testing::HasSubstr;
using SessionId = Coordinator::SessionId;

v1::Hello MakeHello(const std::string& worker, uint32_t slots) {
  v1::Hello hello;
  hello.set_worker(worker);
  hello.set_slots(slots);
  return hello;
}

std::vector<GroupOrder> Groups(uint32_t groups, uint32_t samples) {
  std::vector<GroupOrder> out(groups);
  for (uint32_t g = 0; g < groups; ++g) {
    out[g].samples = samples;
    out[g].base.set_task_id("task" + std::to_string(g));
  }
  return out;
}

v1::Trajectory Played(const v1::Lease& lease, uint32_t sample,
                      uint32_t incarnation = 1) {
  v1::Trajectory t;
  t.mutable_id()->set_run_id("run");
  t.mutable_id()->set_step(lease.step());
  t.mutable_id()->set_group(lease.group());
  t.mutable_id()->set_sample(sample);
  t.mutable_id()->set_attempt(lease.attempt());
  t.set_incarnation(incarnation);
  t.set_purpose(lease.purpose());
  t.set_lease_id(lease.lease_id());
  return t;
}

class CoordinatorTest : public testing::Test {
 protected:
  CoordinatorTest() {
    options_.run_id = "run";
    options_.incarnation = 1;
    coordinator_ = std::make_unique<Coordinator>(options_, &clock_);
  }

  SessionId Join(const std::string& worker, uint32_t slots) {
    const auto id = coordinator_->Connect(MakeHello(worker, slots), [] {});
    EXPECT_TRUE(id.ok()) << id.status();
    return *id;
  }

  std::vector<v1::Lease> Grants(SessionId session) {
    std::vector<v1::Lease> out;
    const auto outbox = coordinator_->TakeOutbox(session);
    for (const auto& m : outbox.value())
      if (m.has_grant()) out.push_back(m.grant().lease());
    return out;
  }

  v1::SubmitReply::Verdict Submit(const v1::Trajectory& t) {
    const Admission a = coordinator_->Admit(t);
    if (a.verdict == v1::SubmitReply::ACCEPTED) coordinator_->Accept(a.id, t);
    return a.verdict;
  }

  CoordinatorOptions options_;
  FakeClock clock_;
  std::unique_ptr<Coordinator> coordinator_;
};

TEST_F(CoordinatorTest, WaitReturnsTheWholeStepInCanonicalOrder) {
  const SessionId w = Join("w", 64);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(3, 4)).ok());
  std::vector<v1::Lease> leases = Grants(w);
  std::reverse(leases.begin(), leases.end());
  for (const v1::Lease& lease : leases) {
    for (int i = lease.samples_size() - 1; i >= 0; --i)
      EXPECT_EQ(Submit(Played(lease, lease.samples(i))),
                v1::SubmitReply::ACCEPTED);
  }
  const auto result = coordinator_->Wait(v1::TRAIN, 1);
  ASSERT_TRUE(result.ok());
  ASSERT_EQ(result->trajectories.size(), 12u);
  for (int i = 0; i < 12; ++i) {
    EXPECT_EQ(result->trajectories[i].id().group(), uint32_t(i / 4));
    EXPECT_EQ(result->trajectories[i].id().sample(), uint32_t(i % 4));
  }
}

TEST_F(CoordinatorTest, TwoWorkersShareAStepEvenly) {
  const SessionId a = Join("a", 64), b = Join("b", 64);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(8, 8)).ok());
  int played[2] = {0, 0};
  for (const v1::Lease& l : Grants(a)) played[0] += l.samples_size();
  for (const v1::Lease& l : Grants(b)) played[1] += l.samples_size();
  EXPECT_EQ(played[0] + played[1], 64);
  EXPECT_NEAR(played[0], played[1], 4);
}

TEST_F(CoordinatorTest, SeveralWorkersShareOneGroup) {
  std::vector<SessionId> workers;
  for (int i = 0; i < 4; ++i) workers.push_back(Join(std::to_string(i), 2));
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 8)).ok());
  std::set<uint32_t> samples;
  for (const SessionId w : workers) {
    int mine = 0;
    for (const v1::Lease& l : Grants(w)) {
      mine += l.samples_size();
      samples.insert(l.samples().begin(), l.samples().end());
    }
    EXPECT_EQ(mine, 2);
  }
  EXPECT_EQ(samples.size(), 8u);
}

TEST_F(CoordinatorTest, ABrokenStreamGivesItsLeasesBackAfterTheGrace) {
  const SessionId dead = Join("dead", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 2)).ok());
  const std::vector<v1::Lease> lost = Grants(dead);
  ASSERT_FALSE(lost.empty());
  const SessionId alive = Join("alive", 8);
  coordinator_->Disconnect(dead);
  coordinator_->Tick();
  EXPECT_TRUE(Grants(alive).empty()) << "the grace has not passed";
  clock_.Advance(options_.grace);
  coordinator_->Tick();
  const std::vector<v1::Lease> again = Grants(alive);
  ASSERT_FALSE(again.empty());
  EXPECT_EQ(again[0].attempt(), lost[0].attempt() + 1);
  // What the dead worker sent on its way comes too late.
  EXPECT_EQ(Submit(Played(lost[0], lost[0].samples(0))),
            v1::SubmitReply::SUPERSEDED);
  EXPECT_EQ(Submit(Played(again[0], again[0].samples(0))),
            v1::SubmitReply::ACCEPTED);
}

TEST_F(CoordinatorTest, AWorkerThatComesBackInTimeKeepsWhatItStillPlays) {
  const SessionId before = Join("w", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(2, 2)).ok());
  const std::vector<v1::Lease> leases = Grants(before);
  ASSERT_GE(leases.size(), 2u);
  coordinator_->Disconnect(before);
  const SessionId after = Join("w", 8);
  EXPECT_TRUE(Grants(after).empty()) << "it has to say what it still plays";
  v1::Beat beat;
  beat.add_lease_ids(leases[0].lease_id());
  coordinator_->Beat(after, beat);
  for (const uint32_t s : leases[0].samples())
    EXPECT_EQ(Submit(Played(leases[0], s)), v1::SubmitReply::ACCEPTED);
  for (const v1::Lease& l : Grants(after)) EXPECT_EQ(l.attempt(), 1u);
  EXPECT_EQ(Submit(Played(leases[1], leases[1].samples(0))),
            v1::SubmitReply::SUPERSEDED);
}

TEST_F(CoordinatorTest, ASecondProcessOfALivingWorkersNameIsRefused) {
  const auto ask = [&](const std::string& life) {
    v1::Hello hello = MakeHello("w", 8);
    hello.set_life(life);
    return coordinator_->Connect(hello, [] {});
  };
  const SessionId first = ask("1").value();
  EXPECT_TRUE(absl::IsUnavailable(ask("2").status())) << "it may be dead";
  clock_.Advance(2 * absl::Seconds(options_.beat_seconds));
  EXPECT_TRUE(absl::IsUnavailable(ask("2").status()));
  coordinator_->Beat(first, {});
  const absl::Status refused = ask("2").status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()),
              testing::AllOf(HasSubstr("worker w"), HasSubstr("--index")));
  EXPECT_TRUE(coordinator_->TakeOutbox(first).has_value()) << "it plays on";
  EXPECT_TRUE(absl::IsUnavailable(ask("3").status())) << "just started";
  // Whoever comes back, and whoever comes after a broken stream, gets in.
  const SessionId again = ask("1").value();
  EXPECT_FALSE(coordinator_->TakeOutbox(first).has_value());
  coordinator_->Disconnect(again);
  EXPECT_TRUE(ask("2").ok());
  EXPECT_EQ(coordinator_->connected(), 1);
}

TEST_F(CoordinatorTest, AWorkersNameIsFreeOnceItWasSilentForTooLong) {
  v1::Hello hello = MakeHello("w", 8);
  hello.set_life("of a machine that lost its power");
  ASSERT_TRUE(coordinator_->Connect(hello, [] {}).ok());
  hello.set_life("restarted");
  clock_.Advance(options_.silent / 2);
  EXPECT_TRUE(
      absl::IsUnavailable(coordinator_->Connect(hello, [] {}).status()));
  clock_.Advance(options_.silent / 2);
  coordinator_->Tick();
  EXPECT_TRUE(coordinator_->Connect(hello, [] {}).ok());
}

TEST_F(CoordinatorTest, ASilentWorkerLosesItsLeases) {
  const SessionId w = Join("w", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 1)).ok());
  ASSERT_EQ(Grants(w).size(), 1u);
  clock_.Advance(options_.silent);
  coordinator_->Tick();
  EXPECT_EQ(coordinator_->totals().pending, 1u);
  EXPECT_EQ(coordinator_->connected(), 0);
  EXPECT_FALSE(coordinator_->TakeOutbox(w).has_value()) << "its stream ends";
}

TEST_F(CoordinatorTest, ReturnedWorkWaitsForItsBackOff) {
  const SessionId w = Join("w", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 1)).ok());
  const v1::Lease lease = Grants(w).at(0);
  v1::ReturnLease back;
  back.set_lease_id(lease.lease_id());
  coordinator_->Return(w, back);
  EXPECT_TRUE(Grants(w).empty());
  clock_.Advance(options_.backoff);
  coordinator_->Tick();
  EXPECT_EQ(Grants(w).at(0).attempt(), 1u);
}

TEST_F(CoordinatorTest, TheSameTrajectoryTwiceIsADuplicate) {
  const SessionId w = Join("w", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 1)).ok());
  const v1::Trajectory t = Played(Grants(w).at(0), 0);
  EXPECT_EQ(Submit(t), v1::SubmitReply::ACCEPTED);
  EXPECT_EQ(Submit(t), v1::SubmitReply::DUPLICATE);
  ASSERT_TRUE(coordinator_->Wait(v1::TRAIN, 1).ok());
  EXPECT_EQ(Submit(t), v1::SubmitReply::DUPLICATE) << "also once it is used";
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 2, Groups(1, 1)).ok());
  EXPECT_EQ(Submit(Played(Grants(w).at(0), 0)), v1::SubmitReply::ACCEPTED);
  ASSERT_TRUE(coordinator_->Wait(v1::TRAIN, 2).ok());
  EXPECT_EQ(Submit(t), v1::SubmitReply::SUPERSEDED) << "forgotten by now";
  EXPECT_TRUE(
      absl::IsAlreadyExists(coordinator_->Open(v1::TRAIN, 1, Groups(1, 1))));
}

TEST_F(CoordinatorTest, OtherRunsLivesAndUnknownWorkAreRefused) {
  const SessionId w = Join("w", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 1)).ok());
  const v1::Lease lease = Grants(w).at(0);
  EXPECT_EQ(Submit(Played(lease, 0, /*incarnation=*/7)),
            v1::SubmitReply::SUPERSEDED);
  EXPECT_EQ(Submit(Played(lease, 5)), v1::SubmitReply::REJECTED);
  v1::Trajectory foreign = Played(lease, 0);
  foreign.mutable_id()->set_run_id("another");
  EXPECT_EQ(Submit(foreign), v1::SubmitReply::REJECTED);
}

TEST_F(CoordinatorTest, MalformedTrajectoriesAreRetriedAndThenDropped) {
  const SessionId w = Join("w", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 1)).ok());
  for (int i = 0; i < options_.max_tries; ++i) {
    const std::vector<v1::Lease> grants = Grants(w);
    ASSERT_EQ(grants.size(), 1u) << i;
    const Admission a = coordinator_->Admit(Played(grants[0], 0));
    ASSERT_EQ(a.verdict, v1::SubmitReply::ACCEPTED);
    coordinator_->Reject(a.id, "log-prob of 3");
    clock_.Advance(options_.max_backoff);
    coordinator_->Tick();
  }
  const auto result = coordinator_->Wait(v1::TRAIN, 1);
  ASSERT_TRUE(result.ok());
  ASSERT_EQ(result->dropped.size(), 1u);
  EXPECT_THAT(result->dropped[0].reason, HasSubstr("log-prob of 3"));
}

v1::Trajectory Failed(const v1::Lease& lease, uint32_t sample,
                      const std::string& kind) {
  v1::Trajectory t = Played(lease, sample);
  t.mutable_outcome()->set_done_reason(v1::ERROR);
  v1::EpisodeError& error = *t.mutable_outcome()->mutable_error();
  error.set_kind(kind);
  error.set_message("g/t1/game.tw-pddl:3: found a second goal");
  return t;
}

TEST_F(CoordinatorTest, AnErrorIsPlayedAgainAndThenDroppedWithItsWords) {
  const SessionId w = Join("w", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 2)).ok());
  const v1::Lease first = Grants(w).at(0);
  const uint32_t other = 1 - first.samples(0);
  for (int i = 0; i < options_.max_tries; ++i) {
    v1::Lease lease = first;
    lease.set_attempt(i);
    const v1::Trajectory t = Failed(lease, first.samples(0), "task");
    const Admission a = coordinator_->Admit(t);
    ASSERT_EQ(a.verdict, v1::SubmitReply::ACCEPTED) << i;
    EXPECT_EQ(a.keep, i + 1 == options_.max_tries);
    coordinator_->Accept(a.id, t);
    clock_.Advance(options_.max_backoff);
    coordinator_->Tick();
  }
  // The others of its group stand.
  v1::Lease lease = first;
  if (first.samples_size() == 1) lease.set_attempt(0);
  EXPECT_EQ(Submit(Played(lease, other)), v1::SubmitReply::ACCEPTED);
  const auto result = coordinator_->Wait(v1::TRAIN, 1);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->trajectories.size(), 1u);
  ASSERT_EQ(result->dropped.size(), 1u);
  EXPECT_EQ(result->dropped[0].error, "task");
  EXPECT_EQ(result->dropped[0].reason,
            "task: g/t1/game.tw-pddl:3: found a second goal");
}

TEST_F(CoordinatorTest, ATaskThatIsSetAsideIsDroppedWithoutATry) {
  const SessionId w = Join("w", 8);
  std::vector<GroupOrder> groups = Groups(2, 2);
  groups[0].set_aside = "task: half a game";
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, std::move(groups)).ok());
  for (const v1::Lease& lease : Grants(w)) {
    EXPECT_EQ(lease.group(), 1u);
    for (const uint32_t s : lease.samples())
      EXPECT_EQ(Submit(Played(lease, s)), v1::SubmitReply::ACCEPTED);
  }
  const auto result = coordinator_->Wait(v1::TRAIN, 1);
  EXPECT_EQ(result->trajectories.size(), 2u);
  ASSERT_EQ(result->dropped.size(), 2u);
  EXPECT_EQ(result->dropped[1].id, (WorkId{v1::TRAIN, 1, 0, 1}));
  EXPECT_EQ(result->dropped[1].reason, "task: half a game");
  EXPECT_EQ(result->dropped[1].error, "task");
  groups = Groups(1, 2);
  groups[0].set_aside = "task: half a game";
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 2, std::move(groups)).ok());
  EXPECT_EQ(coordinator_->Wait(v1::TRAIN, 2)->dropped.size(), 2u)
      << "nothing to wait for";
}

TEST_F(CoordinatorTest, APromptThatDoesNotFitIsNotPlayedAgain) {
  const SessionId w = Join("w", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 1)).ok());
  const v1::Trajectory t = Failed(Grants(w).at(0), 0, "prompt");
  EXPECT_TRUE(coordinator_->Admit(t).keep);
  coordinator_->Accept({v1::TRAIN, 1, 0, 0}, t);
  EXPECT_EQ(coordinator_->Wait(v1::TRAIN, 1)->dropped.size(), 1u);
}

TEST_F(CoordinatorTest, AWorkerThatSaysItIsBlockedGetsNothingUntilItIsNot) {
  const SessionId a = Join("a", 8), b = Join("b", 8);
  v1::Beat beat;
  beat.set_blocked("no environment server has answered for 2m");
  testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) coordinator_->Beat(a, beat);
  const std::string log = testing::internal::GetCapturedStderr();
  const std::string line =
      "warning: worker a plays nothing: no environment server has answered for "
      "2m\n";
  EXPECT_EQ(log.find(line), log.rfind(line));
  EXPECT_THAT(log, HasSubstr(line));
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(2, 8)).ok());
  EXPECT_TRUE(Grants(a).empty());
  EXPECT_FALSE(Grants(b).empty());
  beat.clear_blocked();
  coordinator_->Beat(a, beat);
  EXPECT_FALSE(Grants(a).empty());
}

TEST_F(CoordinatorTest, ReturnsAreNoFailuresOfTheSample) {
  const SessionId w = Join("w", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 1)).ok());
  testing::internal::CaptureStderr();
  for (int i = 0; i < 3 * options_.max_tries; ++i) {
    v1::ReturnLease back;
    back.set_lease_id(Grants(w).at(0).lease_id());
    back.set_reason("teacher 127.0.0.1:1: cannot be reached");
    coordinator_->Return(w, back);
    clock_.Advance(options_.max_backoff);
    coordinator_->Tick();
  }
  const std::string log = testing::internal::GetCapturedStderr();
  const size_t warning = log.find("warning: work was given back");
  EXPECT_NE(warning, std::string::npos) << log;
  EXPECT_EQ(log.find("warning: work was given back", warning + 1),
            std::string::npos)
      << "said once";
  EXPECT_EQ(Submit(Played(Grants(w).at(0), 0)), v1::SubmitReply::ACCEPTED);
}

TEST_F(CoordinatorTest, AWorkerWithAnotherTokenizerIsRefused) {
  options_.model.set_tokenizer_hash("aa");
  Coordinator coordinator(options_, &clock_);
  v1::Hello hello = MakeHello("w", 1);
  hello.mutable_model()->set_tokenizer_hash("bb");
  const auto id = coordinator.Connect(hello, [] {});
  EXPECT_EQ(id.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(id.status().message(), HasSubstr("tokenizer_hash"));
}

TEST_F(CoordinatorTest, AWorkerOfAnotherConfigurationIsRefused) {
  options_.settings = {{"name", "a"}, {"model.max_context", "512"}};
  Coordinator coordinator(options_, &clock_);
  const auto refusal = [&](const std::string& name, const std::string& most) {
    v1::Hello hello = MakeHello("w", 1);
    (*hello.mutable_settings())["name"] = name;
    if (!most.empty()) (*hello.mutable_settings())["model.max_context"] = most;
    const auto id = coordinator.Connect(hello, [] {});
    EXPECT_TRUE(id.ok() || absl::IsFailedPrecondition(id.status()));
    return std::string(id.status().message());
  };
  EXPECT_EQ(refusal("a", "512"), "");
  EXPECT_THAT(refusal("a", "170"),
              HasSubstr("w: model.max_context: found 170, expected 512"));
  EXPECT_THAT(refusal("b", "170"), HasSubstr("w: name: found b, expected a"));
  EXPECT_THAT(refusal("a", ""), HasSubstr("max_context: found nothing"));
}

TEST_F(CoordinatorTest, CloseEndsAWaitAndDrainTellsEveryWorker) {
  const SessionId w = Join("w", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 1)).ok());
  std::thread waiter([&] {
    EXPECT_EQ(coordinator_->Wait(v1::TRAIN, 1).status().code(),
              absl::StatusCode::kCancelled);
  });
  coordinator_->Close();
  waiter.join();
  coordinator_->Drain();
  bool drained = false;
  const auto outbox = coordinator_->TakeOutbox(w);
  for (const auto& m : outbox.value()) drained |= m.has_drain();
  EXPECT_TRUE(drained);
}

TEST_F(CoordinatorTest, ASessionIsWokenOnceForABatchOfMessages) {
  int wakes = 0;
  const SessionId w =
      *coordinator_->Connect(MakeHello("w", 64), [&] { ++wakes; });
  coordinator_->TakeOutbox(w);
  wakes = 0;
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(8, 8)).ok());
  EXPECT_EQ(wakes, 1);
  EXPECT_GT(Grants(w).size(), 1u);
}

TEST_F(CoordinatorTest, LeasesSurviveASecondBreakBeforeTheFirstBeat) {
  const SessionId before = Join("w", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 2)).ok());
  const v1::Lease lease = Grants(before).at(0);
  coordinator_->Disconnect(before);
  coordinator_->Disconnect(Join("w", 8));
  const SessionId after = Join("w", 8);
  v1::Beat beat;
  beat.add_lease_ids(lease.lease_id());
  coordinator_->Beat(after, beat);
  EXPECT_EQ(Submit(Played(lease, lease.samples(0))), v1::SubmitReply::ACCEPTED);
}

TEST_F(CoordinatorTest, ALeaseThatBeatsNameNoMoreIsGivenOutAgain) {
  const SessionId w = Join("w", 8);
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, Groups(1, 1)).ok());
  const v1::Lease lease = Grants(w).at(0);
  v1::Beat beat;
  coordinator_->Beat(w, beat);  // on its way before the lease was
  EXPECT_TRUE(Grants(w).empty());
  beat.add_lease_ids(lease.lease_id());
  coordinator_->Beat(w, beat);
  EXPECT_TRUE(Grants(w).empty());
  beat.clear_lease_ids();  // its Return was lost
  coordinator_->Beat(w, beat);
  EXPECT_EQ(Grants(w).at(0).attempt(), lease.attempt() + 1);
}

}  // namespace
}  // namespace atod::learner
