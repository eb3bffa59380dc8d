#include "services/learner/run_start.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/ledger.h"

namespace atod::learner {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;
namespace fs = std::filesystem;

class RunStartTest : public testing::Test {
 protected:
  RunStartTest() {
    runs_ = testing::TempDir() + "run_start";
    fs::remove_all(runs_);
  }

  std::string Dir(const std::string& run) { return runs_ + "/" + run; }

  void Write(const std::string& path, const std::string& text) {
    ASSERT_TRUE(MakeDirs(fs::path(path).parent_path()).ok());
    ASSERT_TRUE(WriteFileAtomic(path, text).ok());
  }

  // A run that did `steps` steps and saved a checkpoint after those in `saved`.
  void MakeRun(const std::string& run, uint32_t steps,
               const std::vector<uint32_t>& saved) {
    ASSERT_TRUE(MakeDirs(Dir(run)).ok());
    const auto ledger = Ledger::Open(Dir(run) + "/ledger.db").value();
    ASSERT_TRUE(ledger->StartIncarnation({}).ok());
    std::string records;
    for (uint32_t step = 1; step <= steps; ++step) {
      absl::StrAppend(&records, "{\"step\":", step, "}\n");
      ASSERT_TRUE(ledger->Issue({{v1::TRAIN, step, 0, 0}}).ok());
    }
    Write(Dir(run) + "/metrics.jsonl", records);
    for (const uint32_t step : saved) {
      RunCheckpoint state;
      state.run = run;
      state.step = step;
      state.best_step = saved.front();
      ASSERT_TRUE(
          SaveCheckpoint(Dir(run), state, step == saved.front(), /*keep=*/9,
                         [&](const CheckpointFolder& folder) {
                           for (const char* file :
                                {"config.resolved.yaml", "ledger.db",
                                 "model/config.json", "model/model.safetensors",
                                 "optimizer.safetensors"})
                             Write(absl::StrCat(folder.dir(), "/", file), file);
                           return absl::OkStatus();
                         })
              .ok());
      ASSERT_TRUE(ledger->Saved(step).ok());
    }
  }

  absl::StatusOr<RunStart> Start(const std::string& run,
                                 const StartFlags& flags) {
    const absl::Status folder = CheckFolder(Dir(run), flags.resume);
    if (!folder.ok()) return folder;
    return FindStart(Dir(run), runs_, flags);
  }

  std::string Refusal(const std::string& run, const StartFlags& flags) {
    const absl::Status status = Start(run, flags).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  }

  std::vector<std::string> Files(const std::string& run) {
    std::vector<std::string> out;
    std::error_code ec;
    for (const auto& entry : fs::directory_iterator(Dir(run), ec))
      out.push_back(entry.path().filename());
    return out;
  }

  std::string runs_;
};

TEST_F(RunStartTest, ANewRunStartsWithTheModelWhateverItIsAskedFor) {
  EXPECT_EQ(Start("new", {})->from.dir, "");
  // What compose and Helm always say.
  EXPECT_EQ(Start("new", {.resume = "latest"})->from.dir, "");
}

TEST_F(RunStartTest, TheNameOfARunIsTaken) {
  MakeRun("old", 3, {2});
  EXPECT_THAT(Refusal("old", {}), HasSubstr("--resume latest to go on"));
  fs::remove(Dir("old") + "/metrics.jsonl");
  fs::remove(Dir("old") + "/ledger.db");
  EXPECT_THAT(Refusal("old", {}), HasSubstr("found a run (checkpoints)"));
  EXPECT_EQ(Start("old", {.resume = "latest"})->from.state.step, 2u);
}

TEST_F(RunStartTest, ARunThatDiedBeforeItsFirstCheckpointBeginsAnewAndSaysIt) {
  MakeRun("young", 3, {});
  testing::internal::CaptureStderr();
  EXPECT_EQ(Start("young", {.resume = "latest"})->from.dir, "");
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("ended before its first checkpoint"));
}

TEST_F(RunStartTest, ARunWhoseCheckpointsAreGoneIsRefused) {
  for (const char* run : {"all", "steps", "manifests"}) MakeRun(run, 3, {1, 2});
  fs::remove_all(Dir("all") + "/checkpoints");
  fs::remove_all(Dir("steps") + "/checkpoints/step-1");
  fs::remove_all(Dir("steps") + "/checkpoints/step-2");
  fs::remove(Dir("steps") + "/checkpoints/last");
  fs::remove(Dir("manifests") + "/checkpoints/step-1/MANIFEST.json");
  fs::remove(Dir("manifests") + "/checkpoints/step-2/MANIFEST.json");
  fs::remove(Dir("manifests") + "/checkpoints/last");
  for (const char* run : {"all", "steps", "manifests"}) {
    EXPECT_THAT(Refusal(run, {.resume = "latest"}),
                AllOf(HasSubstr("found none, but the run had one of step 2"),
                      HasSubstr("another name")))
        << run;
  }
  fs::remove(Dir("all") + "/ledger.db");
  EXPECT_THAT(Refusal("all", {.resume = "latest"}),
              HasSubstr("no ledger.db, but recorded steps"));
}

TEST_F(RunStartTest, ALedgerOfALifeThatWentOnKnowsOfACheckpoint) {
  MakeRun("older", 3, {});
  {
    const auto ledger = Ledger::Open(Dir("older") + "/ledger.db").value();
    ASSERT_TRUE(ledger->StartIncarnation({.last_step = 2}).ok());
  }
  EXPECT_THAT(Refusal("older", {.resume = "latest"}),
              HasSubstr("the run had one of step 2"));
}

TEST_F(RunStartTest, AForkBeginsWhereItsOriginStood) {
  MakeRun("parent", 5, {2, 4});
  const RunStart start = Start("fork", {.fork = "parent@4"}).value();
  EXPECT_EQ(start.from.dir, Dir("fork") + "/checkpoints/step-4");
  EXPECT_EQ(start.from.state.step, 4u);
  EXPECT_EQ(start.origin.ToString(), Dir("parent") + "@4");
  EXPECT_TRUE(fs::exists(Dir("fork") + "/checkpoints/best/MANIFEST.json"));
  // The way that `atod up` starts it again, also when the origin is gone.
  fs::remove_all(Dir("parent"));
  const StartFlags again = {.resume = "latest", .fork = "parent@4"};
  EXPECT_EQ(Start("fork", again)->from.state.step, 4u);
  EXPECT_EQ(Start("fork", {.resume = "latest"})->origin, start.origin);
  EXPECT_THAT(Refusal("fork", {.resume = "latest", .fork = "parent@2"}),
              AllOf(HasSubstr("--fork: found "), HasSubstr("parent@2"),
                    HasSubstr("parent@4, where the run began")));
}

TEST_F(RunStartTest, ARefusedForkLeavesNothing) {
  MakeRun("parent", 5, {2, 4});
  const std::string checkpoints = Dir("parent") + "/checkpoints";
  EXPECT_THAT(Refusal("fork", {.fork = "parent"}), HasSubstr("RUN@STEP"));
  EXPECT_THAT(Refusal("fork", {.fork = "parent@3"}),
              HasSubstr("found no checkpoint of step 3, expected one of 2, 4"));
  Write(checkpoints + "/step-4/optimizer.safetensors", "damaged");
  for (const bool dry_run : {true, false})
    EXPECT_THAT(Refusal("fork", {.fork = "parent@4", .dry_run = dry_run}),
                AllOf(HasSubstr("step-4/optimizer.safetensors"),
                      HasSubstr("; its other checkpoints: 2")));
  EXPECT_FALSE(fs::exists(Dir("fork")));
  // The best one is copied, too.
  Write(checkpoints + "/step-4/optimizer.safetensors", "optimizer.safetensors");
  Write(checkpoints + "/step-2/state.json", "damaged");
  EXPECT_THAT(Refusal("fork", {.fork = "parent@4"}),
              HasSubstr("step-2/state.json"));
  EXPECT_FALSE(fs::exists(Dir("fork")));
  // And a run of that name may still begin.
  EXPECT_TRUE(Start("fork", {}).ok());
}

TEST_F(RunStartTest, WhatAStartWouldFindIsCheckedBeforeIt) {
  MakeRun("old", 3, {2});
  v1::RunConfig config;
  config.set_runs_dir(runs_);
  config.set_name("old");
  config.set_steps(1);
  EXPECT_THAT(std::string(CheckStart(config, "", "").message()),
              HasSubstr("found a run"));
  EXPECT_THAT(std::string(CheckStart(config, "latest", "").message()),
              HasSubstr("steps: found 1, expected at least 2"));
  config.set_steps(9);
  testing::internal::CaptureStderr();
  EXPECT_TRUE(CheckStart(config, "latest", "").ok());
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("the configuration is not that of"));
  fs::remove(Dir("old") + "/checkpoints/step-2/state.json");
  EXPECT_THAT(std::string(CheckStart(config, "latest", "").message()),
              HasSubstr("step-2/state.json"));
  config.set_name("fork");
  EXPECT_THAT(std::string(CheckStart(config, "", "old@2").message()),
              HasSubstr("step-2/state.json"));
  EXPECT_FALSE(fs::exists(Dir("fork")));
}

TEST_F(RunStartTest, ADryRunReadsTheForkWhereItLies) {
  MakeRun("parent", 5, {4});
  const auto start = Start("fork", {.fork = "parent@4", .dry_run = true});
  EXPECT_EQ(start->from.dir, Dir("parent") + "/checkpoints/step-4");
  EXPECT_FALSE(fs::exists(Dir("fork")));
}

TEST_F(RunStartTest, AForkThatWasNotFinishedNeverStartsWithTheModel) {
  MakeRun("parent", 5, {4});
  ASSERT_TRUE(Start("fork", {.fork = "parent@4"}).ok());
  fs::remove_all(Dir("fork") + "/checkpoints");
  EXPECT_THAT(Files("fork"),
              UnorderedElementsAre("fork.json", "metrics.jsonl"));
  const std::string way_out =
      absl::StrCat("--fork ", Dir("parent"), "@4 --resume latest");
  EXPECT_THAT(Refusal("fork", {.resume = "latest"}), HasSubstr(way_out));
  fs::remove(Dir("fork") + "/metrics.jsonl");
  EXPECT_THAT(Refusal("fork", {}), HasSubstr(way_out));
  EXPECT_EQ(
      Start("fork", {.resume = "latest", .fork = "parent@4"})->from.state.step,
      4u);
}

TEST_F(RunStartTest, AForkThatLostItsOwnStepsIsNotMadeAgain) {
  MakeRun("parent", 5, {4});
  ASSERT_TRUE(Start("fork", {.fork = "parent@4"}).ok());
  {
    const auto ledger = Ledger::Open(Dir("fork") + "/ledger.db").value();
    ASSERT_TRUE(ledger->StartIncarnation({.last_step = 4}).ok());
  }
  fs::remove_all(Dir("fork") + "/checkpoints");
  EXPECT_THAT(Refusal("fork", {.resume = "latest", .fork = "parent@4"}),
              HasSubstr("the run had one of step 4"));
}

}  // namespace
}  // namespace atod::learner
