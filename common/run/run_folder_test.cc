#include "common/run/run_folder.h"

#include <unistd.h>

#include <filesystem>

#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

using testing::HasSubstr;

class RunFolderTest : public testing::Test {
 protected:
  ~RunFolderTest() override { std::filesystem::remove_all(root_); }
  const std::string root_ =
      testing::TempDir() + "run_folder." + std::to_string(getpid());
};

TEST_F(RunFolderTest, PlacesAreThoseThatTheDocumentsName) {
  const RunFolder run("runs", "a");
  EXPECT_EQ(run.dir(), "runs/a");
  EXPECT_EQ(run.panel(12), "runs/a/evals/panel-000012.jsonl");
  EXPECT_EQ(run.log("learner"), "runs/a/logs/learner.log");
  EXPECT_EQ(run.weights("beef"), "runs/a/weights/beef.safetensors");
  EXPECT_EQ(run.last().model(), "runs/a/checkpoints/last/model");
  EXPECT_EQ(RunFolder("runs/a//").metrics(), "runs/a/metrics.jsonl");
  EXPECT_EQ(RunFolder("/").ledger(), "//ledger.db");
}

TEST_F(RunFolderTest, WhatIsNoFolderIsNoRun) {
  EXPECT_THAT(RunFolder::Find(root_).status().message(),
              HasSubstr(root_ + ": RUN_DIR: found nothing"));
  ASSERT_TRUE(WriteFileAtomic(root_, "").ok());
  EXPECT_THAT(RunFolder::Find(root_).status().message(),
              HasSubstr("found a file"));
}

TEST_F(RunFolderTest, ALearnerAtWorkKeepsOthersOutAndLetsThemInAfterIt) {
  const RunFolder run(root_);
  {
    const auto learner = run.Lock();
    ASSERT_TRUE(learner.ok()) << learner.status();
    EXPECT_TRUE(absl::IsFailedPrecondition(run.Lock().status()));
    EXPECT_TRUE(absl::IsInvalidArgument(run.LockLogs().status()));
  }
  const auto up = run.LockLogs();
  ASSERT_TRUE(up.ok()) << up.status();
  EXPECT_TRUE(absl::IsInvalidArgument(run.LockLogs().status()));
  // The learner that it starts.
  EXPECT_TRUE(run.Lock().ok());
}

}  // namespace
}  // namespace atod
