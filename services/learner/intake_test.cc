#include "services/learner/intake.h"

#include <filesystem>
#include <limits>

#include "absl/synchronization/notification.h"
#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::learner {
namespace {

using ::testing::HasSubstr;

GroupOrder Order() {
  GroupOrder order;
  order.samples = 2;
  v1::Lease& base = order.base;
  base.set_env("alfworld");
  base.set_split("train");
  base.set_task_id("t1");
  base.set_content_hash("c");
  base.set_env_seed(5);
  base.set_layout("windowed");
  base.mutable_weight_min()->set_root_hash("w");
  base.mutable_weight_max()->set_root_hash("w");
  base.mutable_sampling()->set_temperature(1);
  base.add_teachers("teacher");
  order.task.set_task_id("t1");
  order.task.set_category("pick");
  return order;
}

// A trajectory of one turn that fits Order().
v1::Trajectory Good(const v1::Lease& lease, uint32_t sample) {
  v1::Trajectory t;
  t.mutable_id()->set_run_id("run");
  t.mutable_id()->set_step(lease.step());
  t.mutable_id()->set_sample(sample);
  t.mutable_id()->set_attempt(lease.attempt());
  t.set_incarnation(1);
  t.set_purpose(lease.purpose());
  t.set_env(lease.env());
  t.set_split(lease.split());
  t.mutable_task()->set_task_id(lease.task_id());
  t.set_env_seed(lease.env_seed());
  t.set_content_hash(lease.content_hash());
  t.set_layout(lease.layout());
  v1::Turn& turn = *t.add_turns();
  turn.set_trainable(true);
  v1::Sequence& seq = *t.add_sequences();
  for (uint32_t id : {1, 2, 3, 4}) seq.add_tokens(id);
  v1::Span& span = *seq.add_spans();
  span.set_begin(2);
  span.set_length(2);
  v1::TeacherScores& scores = *span.add_teacher();
  scores.set_model("teacher");
  scores.set_temperature(1);
  for (float lp : {-0.5f, -1.5f}) {
    span.add_rollout_logprobs(lp);
    scores.add_logprobs(lp);
  }
  v1::VersionRun& run = *span.add_versions();
  run.set_count(2);
  run.mutable_version()->set_root_hash("w");
  return t;
}

class IntakeTest : public testing::Test {
 protected:
  IntakeTest() {
    dir_ = testing::TempDir() + "intake";
    std::filesystem::remove_all(dir_);
    EXPECT_TRUE(MakeDirs(dir_).ok());
    ledger_ = Ledger::Open(dir_ + "/ledger.db").value();
    store_ = TrajectoryStore::Open(dir_ + "/spool").value();
    CoordinatorOptions options;
    options.run_id = "run";
    coordinator_ = std::make_unique<Coordinator>(options, &clock_);
    intake_ = std::make_unique<Intake>(coordinator_.get(), ledger_.get(),
                                       store_.get(), TrajectoryLimits{10, 100});
    v1::Hello hello;
    hello.set_worker("w");
    hello.set_slots(2);
    const auto session = coordinator_->Connect(hello, [] {}).value();
    EXPECT_TRUE(
        ledger_->Issue({{v1::TRAIN, 1, 0, 0}, {v1::TRAIN, 1, 0, 1}}).ok());
    EXPECT_TRUE(coordinator_->Open(v1::TRAIN, 1, {Order()}).ok());
    const auto outbox = coordinator_->TakeOutbox(session);
    for (const auto& m : outbox.value())
      if (m.has_grant() && lease_.lease_id() == 0) lease_ = m.grant().lease();
  }

  v1::SubmitReply Submit(const v1::Trajectory& t) {
    absl::Notification done;
    absl::StatusOr<v1::SubmitReply> out;
    intake_->Submit(t, [&](absl::StatusOr<v1::SubmitReply> reply) {
      out = std::move(reply);
      done.Notify();
    });
    done.WaitForNotification();
    EXPECT_TRUE(out.ok()) << out.status();
    return *out;
  }

  std::string dir_;
  FakeClock clock_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<TrajectoryStore> store_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<Intake> intake_;
  v1::Lease lease_;
};

TEST_F(IntakeTest, AnAcceptedTrajectoryIsOnDiskAndInTheLedger) {
  EXPECT_EQ(Submit(Good(lease_, lease_.samples(0))).verdict(),
            v1::SubmitReply::ACCEPTED);
  EXPECT_EQ(ledger_->Count()->submitted, 1u);
  std::vector<v1::Trajectory> stored;
  ASSERT_TRUE(ReadTrajectories(TrajectoryFile(dir_ + "/spool", v1::TRAIN, 1),
                               [&](v1::Trajectory t) { stored.push_back(t); })
                  .ok());
  ASSERT_EQ(stored.size(), 1u);
  EXPECT_EQ(stored[0].task().category(), "pick");
  EXPECT_EQ(StoredSteps(dir_ + "/spool", v1::TRAIN).value(),
            std::vector<uint32_t>{1});
}

TEST_F(IntakeTest, OnlyTheLastErrorOfASampleIsKeptAndWarnedOf) {
  testing::internal::CaptureStderr();
  v1::Trajectory t = Good(lease_, lease_.samples(0));
  t.mutable_outcome()->set_done_reason(v1::ERROR);
  t.mutable_outcome()->mutable_error()->set_kind("task");
  t.mutable_outcome()->mutable_error()->set_message("g/t1:3: two goals");
  // Nobody looks at what was sampled before an error.
  t.mutable_sequences(0)->mutable_spans(0)->clear_rollout_logprobs();
  for (int attempt = 0; attempt < 3; ++attempt) {
    EXPECT_EQ(ledger_->Count()->submitted, 0u);
    t.mutable_id()->set_attempt(attempt);
    EXPECT_EQ(Submit(t).verdict(), v1::SubmitReply::ACCEPTED);
    EXPECT_EQ(Submit(t).verdict(), v1::SubmitReply::SUPERSEDED) << "again";
    clock_.Advance(absl::Seconds(10));
    coordinator_->Tick();
  }
  EXPECT_EQ(ledger_->Count()->submitted, 1u);
  std::vector<v1::Trajectory> stored;
  ASSERT_TRUE(ReadTrajectories(TrajectoryFile(dir_ + "/spool", v1::TRAIN, 1),
                               [&](v1::Trajectory x) { stored.push_back(x); })
                  .ok());
  ASSERT_EQ(stored.size(), 1u);
  EXPECT_EQ(stored[0].outcome().error().message(), "g/t1:3: two goals");
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("warning: episodes are left out (the first of "
                             "kind task): g/t1:3: two"));
}

TEST_F(IntakeTest, ATornTailIsIgnoredAndACorruptFrameIsNamed) {
  Submit(Good(lease_, lease_.samples(0)));
  const std::string path = TrajectoryFile(dir_ + "/spool", v1::TRAIN, 1);
  const std::string bytes = ReadFile(path).value();
  int frames = 0;
  const auto count = [&](v1::Trajectory) { ++frames; };
  ASSERT_TRUE(
      WriteFileAtomic(path, bytes + bytes.substr(0, bytes.size() - 1)).ok());
  EXPECT_TRUE(ReadTrajectories(path, count).ok());
  EXPECT_EQ(frames, 1);
  // Any byte: of the header, too, whose length would else hide what follows.
  for (const size_t at : {size_t{0}, size_t{5}, size_t{9}, size_t{13},
                          size_t{40}, bytes.size() - 1}) {
    std::string corrupt = bytes;
    corrupt[at] ^= 1;
    EXPECT_THAT(
        ReadFrames(bytes + corrupt + bytes, path, count).status().message(),
        HasSubstr(absl::StrCat(path, ": frame at byte ", bytes.size())))
        << at;
  }
  EXPECT_EQ(ReadFrames(bytes + std::string(5000, '\0'), path, count).value(),
            bytes.size());
}

TEST_F(IntakeTest, ATornTailGoesBeforeTheNextFrameComes) {
  Submit(Good(lease_, lease_.samples(0)));
  const std::string path = TrajectoryFile(dir_ + "/spool", v1::TRAIN, 1);
  const std::string bytes = ReadFile(path).value();
  for (const size_t torn : {size_t{1}, size_t{16}, bytes.size() - 1}) {
    ASSERT_TRUE(WriteFileAtomic(path, bytes + bytes.substr(0, torn)).ok());
    auto store = TrajectoryStore::Open(dir_ + "/spool").value();
    ASSERT_TRUE(store->Append(Good(lease_, lease_.samples(0))).ok());
    ASSERT_TRUE(store->Sync().ok());
    int frames = 0;
    ASSERT_TRUE(ReadTrajectories(path, [&](v1::Trajectory) { ++frames; }).ok());
    EXPECT_EQ(frames, 2) << torn;
  }
  ASSERT_TRUE(WriteFileAtomic(path, bytes.substr(1) + bytes).ok());
  EXPECT_TRUE(absl::IsDataLoss(TrajectoryStore::Open(dir_ + "/spool")
                                   .value()
                                   ->Append(Good(lease_, lease_.samples(0)))));
}

TEST_F(IntakeTest, AMixedVersionSequenceIsToldByItsSpans) {
  v1::Trajectory t = Good(lease_, lease_.samples(0));
  v1::Span& span = *t.mutable_sequences(0)->mutable_spans(0);
  span.mutable_versions(0)->set_count(1);
  v1::VersionRun& later = *span.add_versions();
  later.set_count(1);
  later.mutable_version()->set_number(8);
  later.mutable_version()->set_root_hash("later");
  const v1::SubmitReply reply = Submit(t);
  EXPECT_EQ(reply.verdict(), v1::SubmitReply::REJECTED);
  EXPECT_EQ(reply.problem().found(), "1 tokens of version 8 (later)");
}

TEST_F(IntakeTest, TheSameWeightsUnderAnotherNumberAreTheSame) {
  v1::Trajectory t = Good(lease_, lease_.samples(0));
  v1::Span& span = *t.mutable_sequences(0)->mutable_spans(0);
  span.mutable_versions(0)->set_count(1);
  v1::VersionRun& later = *span.add_versions();
  later.set_count(1);
  later.mutable_version()->set_number(8);
  later.mutable_version()->set_root_hash("w");
  EXPECT_EQ(Submit(t).verdict(), v1::SubmitReply::ACCEPTED);
}

// Each malformation, and the field that the worker is told.
struct Malformation {
  const char* field;
  void (*make)(v1::Trajectory&);
};
class MalformedTest : public IntakeTest,
                      public testing::WithParamInterface<Malformation> {};

TEST_P(MalformedTest, IsRejectedNamingTheField) {
  v1::Trajectory t = Good(lease_, lease_.samples(0));
  GetParam().make(t);
  const v1::SubmitReply reply = Submit(t);
  EXPECT_EQ(reply.verdict(), v1::SubmitReply::REJECTED);
  EXPECT_THAT(reply.problem().field(), HasSubstr(GetParam().field));
  EXPECT_EQ(ledger_->Count()->submitted, 0u);
}

v1::Span& SpanOf(v1::Trajectory& t) {
  return *t.mutable_sequences(0)->mutable_spans(0);
}

INSTANTIATE_TEST_SUITE_P(
    Fields, MalformedTest,
    testing::Values(
        Malformation{"tokens[3]",
                     [](v1::Trajectory& t) {
                       t.mutable_sequences(0)->set_tokens(3, 10);
                     }},
        Malformation{"spans[0]",
                     [](v1::Trajectory& t) { SpanOf(t).set_length(3); }},
        Malformation{"spans[0]",
                     [](v1::Trajectory& t) { SpanOf(t).set_begin(0); }},
        Malformation{"turn", [](v1::Trajectory& t) { SpanOf(t).set_turn(1); }},
        Malformation{
            "rollout_logprobs[1]",
            [](v1::Trajectory& t) { SpanOf(t).set_rollout_logprobs(1, 0.5f); }},
        Malformation{"rollout_logprobs[0]",
                     [](v1::Trajectory& t) {
                       SpanOf(t).set_rollout_logprobs(
                           0, std::numeric_limits<float>::quiet_NaN());
                     }},
        Malformation{"rollout_logprobs",
                     [](v1::Trajectory& t) {
                       SpanOf(t).mutable_rollout_logprobs()->RemoveLast();
                     }},
        Malformation{"teacher",
                     [](v1::Trajectory& t) { SpanOf(t).clear_teacher(); }},
        Malformation{"teacher.logprobs",
                     [](v1::Trajectory& t) {
                       SpanOf(t).mutable_teacher(0)->add_logprobs(-1);
                     }},
        Malformation{"teacher.logprobs[0]",
                     [](v1::Trajectory& t) {
                       SpanOf(t).mutable_teacher(0)->set_logprobs(
                           0, -std::numeric_limits<float>::infinity());
                     }},
        Malformation{"temperature",
                     [](v1::Trajectory& t) {
                       SpanOf(t).mutable_teacher(0)->set_temperature(0.4f);
                     }},
        Malformation{
            "versions",
            [](v1::Trajectory& t) {
              SpanOf(t).mutable_versions(0)->mutable_version()->set_root_hash(
                  "other");
            }},
        Malformation{"versions",
                     [](v1::Trajectory& t) {
                       SpanOf(t).mutable_versions(0)->set_count(1);
                     }},
        Malformation{"versions",
                     [](v1::Trajectory& t) {
                       v1::VersionRun& none = *SpanOf(t).add_versions();
                       none.mutable_version()->set_root_hash("w");
                     }},
        Malformation{"versions",
                     [](v1::Trajectory& t) { SpanOf(t).clear_versions(); }},
        Malformation{
            "task.task_id",
            [](v1::Trajectory& t) { t.mutable_task()->set_task_id("t2"); }},
        Malformation{"content_hash",
                     [](v1::Trajectory& t) { t.set_content_hash("d"); }},
        Malformation{
            "turns[0].index",
            [](v1::Trajectory& t) { t.mutable_turns(0)->set_index(1); }},
        Malformation{"outcome.error",
                     [](v1::Trajectory& t) {
                       t.mutable_outcome()->set_done_reason(v1::ERROR);
                     }},
        Malformation{"outcome.error",
                     [](v1::Trajectory& t) {
                       t.mutable_outcome()->set_done_reason(v1::WON);
                       t.mutable_outcome()->mutable_error()->set_kind("task");
                     }},
        Malformation{
            "outcome.error.kind",
            [](v1::Trajectory& t) {
              t.mutable_outcome()->set_done_reason(v1::ERROR);
              t.mutable_outcome()->mutable_error()->set_kind("weather");
              t.mutable_outcome()->mutable_error()->set_message("rain");
            }},
        Malformation{"outcome.error.message",
                     [](v1::Trajectory& t) {
                       t.mutable_outcome()->set_done_reason(v1::ERROR);
                       t.mutable_outcome()->mutable_error()->set_kind("task");
                     }},
        Malformation{"outcome", [](v1::Trajectory& t) {
                       t.mutable_outcome()->set_reward(
                           std::numeric_limits<float>::infinity());
                     }}));

}  // namespace
}  // namespace atod::learner
