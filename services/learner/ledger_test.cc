#include "services/learner/ledger.h"

#include <sqlite3.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>

#include "common/base/file.h"
#include "common/base/rng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/ledger_check.h"
#include "services/learner/trajectory_store.h"

namespace atod::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string FreshPath(const std::string& name) {
  const std::string path = testing::TempDir() + "ledger_" + name + ".db";
  for (const char* suffix : {"", "-wal", "-shm"})
    std::filesystem::remove(path + suffix);
  return path;
}

std::vector<WorkId> Step(uint32_t step, uint32_t groups, uint32_t samples,
                         v1::Purpose purpose = v1::TRAIN) {
  std::vector<WorkId> out;
  for (uint32_t g = 0; g < groups; ++g)
    for (uint32_t s = 0; s < samples; ++s) out.push_back({purpose, step, g, s});
  return out;
}

void Sql(const std::string& path, const std::string& sql) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK)
      << sqlite3_errmsg(db);
  sqlite3_close(db);
}

absl::Status Submit(Ledger& ledger, const std::vector<WorkId>& work) {
  std::vector<SubmittedRow> rows;
  for (const WorkId& id : work) rows.push_back({id, 0, "w"});
  return ledger.Submit(rows);
}

// One whole step of four.
void Play(Ledger& ledger, uint32_t step) {
  ASSERT_TRUE(ledger.Issue(Step(step, 2, 2)).ok());
  ASSERT_TRUE(Submit(ledger, Step(step, 2, 2)).ok());
  ASSERT_TRUE(ledger.Consume(step, {Step(step, 2, 2)}).ok());
}

TEST(LedgerTest, CountsAgreeWithAModelOverRandomSteps) {
  const std::string path = FreshPath("random");
  auto ledger = Ledger::Open(path);
  ASSERT_TRUE(ledger.ok()) << ledger.status();
  ASSERT_EQ((*ledger)->StartIncarnation({0, -1}).value(), 1u);
  Rng rng(5);
  Ledger::Counts want;
  for (uint32_t step = 1; step <= 30; ++step) {
    const std::vector<WorkId> work =
        Step(step, 1 + rng.Below(4), 1 + rng.Below(5));
    ASSERT_TRUE((*ledger)->Issue(work).ok());
    want.issued += work.size();
    std::vector<std::vector<WorkId>> updates(1 + rng.Below(3));
    for (const WorkId& id : work) {
      switch (rng.Below(4)) {
        case 0:
          ASSERT_TRUE((*ledger)->Drop(id, "refused").ok());
          ++want.dropped;
          break;
        case 1:
          ++want.in_flight;
          break;
        default:
          ASSERT_TRUE((*ledger)->Submit({{id, 0, "w"}}).ok());
          updates[rng.Below(updates.size())].push_back(id);
          ++want.submitted;
          ++want.consumed;
      }
    }
    ASSERT_TRUE((*ledger)->Consume(step, updates).ok());
    const Ledger::Counts got = (*ledger)->Count().value();
    EXPECT_EQ(got.issued, want.issued);
    EXPECT_EQ(got.submitted, want.submitted);
    EXPECT_EQ(got.consumed, want.consumed);
    EXPECT_EQ(got.dropped, want.dropped);
    EXPECT_EQ(got.in_flight, want.in_flight);
  }
  // The check reads the file beside the living writer.
  const auto report = CheckLedger(path);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->ok());
  EXPECT_EQ(report->counts.in_flight, want.in_flight);
}

TEST(LedgerTest, EvaluationIsNotCountedAsTraining) {
  const std::string path = FreshPath("eval");
  auto ledger = Ledger::Open(path).value();
  ASSERT_TRUE(ledger->Issue(Step(0, 5, 1, v1::EVAL)).ok());
  ASSERT_TRUE(ledger->Issue(Step(1, 1, 2)).ok());
  EXPECT_EQ(ledger->Count()->issued, 2u);
}

TEST(LedgerTest, CheckFindsADoubleConsumption) {
  const std::string path = FreshPath("double");
  {
    auto ledger = Ledger::Open(path).value();
    ASSERT_TRUE(ledger->Issue(Step(1, 1, 2)).ok());
    ASSERT_TRUE(Submit(*ledger, Step(1, 1, 2)).ok());
    ASSERT_TRUE(ledger->Consume(1, {Step(1, 1, 2)}).ok());
    ASSERT_TRUE(CheckLedger(path)->ok());
    ASSERT_TRUE(ledger->Consume(1, {{}, {{v1::TRAIN, 1, 0, 1}}}).ok());
  }
  const LedgerReport report = CheckLedger(path).value();
  EXPECT_FALSE(report.ok());
  EXPECT_THAT(report.duplicates,
              ElementsAre(HasSubstr("1/0/1: consumed 2 times")));
}

TEST(LedgerTest, CheckFindsALostTrajectory) {
  const std::string path = FreshPath("lost");
  auto ledger = Ledger::Open(path).value();
  ASSERT_TRUE(ledger->Issue(Step(1, 1, 3)).ok());
  Sql(path, "DELETE FROM in_flight WHERE sample = 2");
  const LedgerReport report = CheckLedger(path).value();
  EXPECT_FALSE(report.ok());
  EXPECT_THAT(report.gaps, ElementsAre(HasSubstr("gap 1/0/2")));
}

TEST(LedgerTest, ANewIncarnationSupersedesLaterStepsAndCountsStillHold) {
  const std::string path = FreshPath("resume");
  {
    auto ledger = Ledger::Open(path).value();
    ASSERT_EQ(ledger->StartIncarnation({0, -1}).value(), 1u);
    for (uint32_t step = 1; step <= 3; ++step) Play(*ledger, step);
    ASSERT_TRUE(ledger->Issue(Step(4, 2, 2)).ok());
    ASSERT_TRUE(ledger->Drop({v1::TRAIN, 4, 0, 0}, "refused").ok());
    // The evaluation of step 2 was under way.
    ASSERT_TRUE(ledger->Issue(Step(2, 3, 1, v1::EVAL)).ok());
  }
  auto ledger = Ledger::Open(path).value();
  EXPECT_EQ(ledger->StartIncarnation({2, 1}).value(), 2u);
  EXPECT_EQ(ledger->Count()->issued, 8u);
  EXPECT_EQ(ledger->Count()->consumed, 8u);
  ASSERT_TRUE(ledger->Issue(Step(3, 2, 2)).ok());
  ASSERT_TRUE(ledger->Issue(Step(2, 3, 1, v1::EVAL)).ok());
  LedgerReport report = CheckLedger(path).value();
  EXPECT_TRUE(report.ok());
  EXPECT_EQ(report.counts.issued, 12u);
  EXPECT_EQ(report.counts.superseded, 8u);  // steps 3 and 4
  EXPECT_EQ(report.counts.issued_ever, 20u);
  EXPECT_EQ(report.incarnation, 2u);
  // A second death before anything was done supersedes what is open again.
  EXPECT_EQ(ledger->StartIncarnation({2, 1}).value(), 3u);
  report = CheckLedger(path).value();
  EXPECT_TRUE(report.ok());
  EXPECT_EQ(report.counts.superseded, 12u);
}

TEST(LedgerTest, CheckFindsWhatIsLostWhenALifeIsGivenUp) {
  const std::string path = FreshPath("lost_life");
  auto ledger = Ledger::Open(path).value();
  ASSERT_EQ(ledger->StartIncarnation({0, -1}).value(), 1u);
  Play(*ledger, 1);
  ASSERT_TRUE(ledger->Issue(Step(2, 2, 2)).ok());
  Sql(path, "DELETE FROM in_flight WHERE grp = 1 AND sample = 1");
  ASSERT_EQ(ledger->StartIncarnation({1, 1}).value(), 2u);
  const LedgerReport report = CheckLedger(path).value();
  EXPECT_EQ(report.counts.superseded, 3u);
  EXPECT_FALSE(report.ok());
  EXPECT_THAT(report.gaps, ElementsAre(HasSubstr("gap 2/1/1")));
}

TEST(LedgerTest, CheckComputesEveryDigestAgain) {
  const std::string path = FreshPath("digests");
  auto ledger = Ledger::Open(path).value();
  Play(*ledger, 1);
  Play(*ledger, 2);
  EXPECT_EQ(CheckLedger(path)->updates, 2u);
  EXPECT_TRUE(CheckLedger(path)->ok());
  Sql(path,
      "UPDATE consumed SET sample = 7 WHERE step = 2 AND grp = 1 AND sample = "
      "1");
  EXPECT_THAT(CheckLedger(path)->digests, ElementsAre(HasSubstr("digest 2")));
  Sql(path, "DELETE FROM updates WHERE step = 1");
  EXPECT_EQ(CheckLedger(path)->digests.size(), 2u);
}

TEST(LedgerTest, AResumeRefusesALedgerThatDisagreesWithTheCheckpoint) {
  const std::string path = FreshPath("disagree"), copy = FreshPath("disagree2");
  auto ledger = Ledger::Open(path).value();
  ASSERT_EQ(ledger->StartIncarnation({0, -1}).value(), 1u);
  Play(*ledger, 1);
  Play(*ledger, 2);
  ASSERT_TRUE(ledger->SnapshotTo(copy).ok());
  Play(*ledger, 3);
  EXPECT_EQ(ledger->StartIncarnation({2, 2, copy}).value(), 2u);
  Sql(path, "UPDATE updates SET digest = 'other' WHERE step = 1");
  const auto refused = ledger->StartIncarnation({2, 2, copy});
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status()));
  EXPECT_THAT(refused.status().message(), HasSubstr("updates of step 1"));
  EXPECT_EQ(ledger->Count()->consumed, 8u);
  // Not of this run's own steps: the fork's parent has them.
  Continuation fork{2, 2, copy, "parent@1", 1};
  EXPECT_EQ(ledger->StartIncarnation(fork).value(), 3u);
  EXPECT_EQ(CheckLedger(path)->forked_from, "parent@1");
}

TEST(LedgerTest, CheckRunFindsEveryPayloadThatTheLedgerNames) {
  const std::string dir = testing::TempDir() + "ledger_run";
  std::filesystem::remove_all(dir);
  ASSERT_TRUE(MakeDirs(dir).ok());
  auto ledger = Ledger::Open(dir + "/ledger.db").value();
  ASSERT_EQ(ledger->StartIncarnation({0, -1}).value(), 1u);
  auto store = TrajectoryStore::Open(RunFolder(dir).spool()).value();
  Play(*ledger, 1);
  for (const WorkId& id : Step(1, 2, 2)) {
    v1::Trajectory t;
    t.set_purpose(id.purpose);
    t.mutable_id()->set_step(id.step);
    t.mutable_id()->set_group(id.group);
    t.mutable_id()->set_sample(id.sample);
    t.set_incarnation(1);
    ASSERT_TRUE(store->Append(t).ok());
  }
  ASSERT_TRUE(store->Sync().ok());
  LedgerReport report = CheckRun(dir).value();
  EXPECT_TRUE(report.ok());
  EXPECT_EQ(report.payloads, 4u);

  const std::string path = TrajectoryFile(RunFolder(dir).spool(), v1::TRAIN, 1);
  const std::string bytes = ReadFile(path).value();
  ASSERT_TRUE(WriteFileAtomic(path, bytes.substr(0, bytes.size() - 1)).ok());
  EXPECT_THAT(CheckRun(dir)->missing, ElementsAre(HasSubstr("payload 1/1/1")));
  std::string flipped = bytes;
  flipped[20] ^= 1;
  ASSERT_TRUE(WriteFileAtomic(path, flipped).ok());
  report = CheckRun(dir).value();
  EXPECT_FALSE(report.ok());
  EXPECT_THAT(report.missing[0], HasSubstr(path + ": frame at byte 0"));
  std::filesystem::remove(path);
  EXPECT_FALSE(CheckRun(dir)->ok());
}

TEST(LedgerTest, WhatIsNoLedgerIsNamedOnce) {
  const std::string path = FreshPath("no_ledger");
  ASSERT_TRUE(WriteFileAtomic(path, "junk").ok());
  EXPECT_EQ(CheckLedger(path).status().message(),
            path +
                ": ledger: found file is not a database, expected the "
                "ledger of a run");
}

TEST(LedgerTest, APipeIsRefusedInsteadOfWaitedFor) {
  const std::string path = FreshPath("pipe");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  for (const absl::Status& status :
       {CheckLedger(path).status(), Ledger::Open(path).status()})
    EXPECT_THAT(status.message(), HasSubstr("found no plain file"));
  std::filesystem::remove(path);
}

TEST(LedgerTest, ALedgerOfAnotherBuildIsRefused) {
  const std::string path = FreshPath("other_build");
  Sql(path, "CREATE TABLE issued(purpose INTEGER)");
  const auto ledger = Ledger::Open(path);
  EXPECT_THAT(ledger.status().message(), HasSubstr("user_version"));
}

TEST(LedgerTest, ASnapshotIsALedger) {
  const std::string path = FreshPath("source"), copy = FreshPath("copy");
  auto ledger = Ledger::Open(path).value();
  ASSERT_TRUE(ledger->Issue(Step(1, 2, 2)).ok());
  ASSERT_TRUE(ledger->SnapshotTo(copy).ok());
  ASSERT_TRUE(ledger->Issue(Step(2, 2, 2)).ok());
  EXPECT_EQ(CheckLedger(copy)->counts.issued, 4u);
  EXPECT_FALSE(std::filesystem::exists(copy + "-wal"));
}

TEST(LedgerTest, FilesThatAreNoLedgersAreNamed) {
  EXPECT_THAT(CheckLedger("/nonexistent/ledger.db").status().message(),
              HasSubstr("/nonexistent/ledger.db"));
  const std::string path = FreshPath("garbage");
  ASSERT_TRUE(WriteFileAtomic(path, std::string(5000, 'x')).ok());
  EXPECT_FALSE(CheckLedger(path).ok());
  EXPECT_FALSE(Ledger::Open(path).ok());
}

TEST(WorkIdTest, TextRoundTrips) {
  for (const WorkId& id :
       {WorkId{v1::TRAIN, 12, 3, 5}, WorkId{v1::EVAL, 0, 119, 0}}) {
    EXPECT_EQ(ParseId(FormatId(id)).value(), id);
  }
  for (const char* bad : {"", "1/2", "a/b/c", "eval/1/2", "1/2/3/4", "1/-2/3"})
    EXPECT_FALSE(ParseId(bad).ok()) << bad;
}

}  // namespace
}  // namespace atod::learner
