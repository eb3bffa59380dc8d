#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <limits>
#include <set>
#include <thread>

#include "common/base/cpus.h"
#include "common/base/disk.h"
#include "common/base/error_share.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/printable.h"
#include "common/base/problem.h"
#include "common/base/queue.h"
#include "common/base/rng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

TEST(Problem, MessageNamesFileLineFieldFoundAndExpected) {
  const absl::Status s = BadInput({"a.yaml", "steps", 3, "x", "a number"});
  EXPECT_EQ(s.message(), "a.yaml:3: steps: found x, expected a number");
  EXPECT_EQ(ProblemOf(s).line, 3);
  EXPECT_EQ(WithFile(BadInput({"", "f", 0, "x", "y"}), "q").message(),
            "q: f: found x, expected y");
}

TEST(Json, DeepNestingIsRefusedNotOverflowed) {
  const std::string deep(1'000'000, '[');
  EXPECT_EQ(ParseJson(deep, "a.json").status().message(),
            "a.json:1: found values nested too deeply, expected at most 200 "
            "levels");
  const std::string fits = std::string(200, '[') + std::string(200, ']');
  EXPECT_TRUE(ParseJson(fits, "a.json").ok());
  // Brackets inside a text do not nest.
  EXPECT_TRUE(ParseJson('"' + deep + "\\\"" + deep + '"', "a.json").ok());
}

// A folder as /sys/fs/cgroup.
class CpuQuotaTest : public testing::Test {
 protected:
  void Group(const std::string& folder, const std::string& file,
             const std::string& text) {
    ASSERT_TRUE(MakeDirs(root_ + folder).ok());
    ASSERT_TRUE(WriteFileAtomic(root_ + folder + "/" + file, text).ok());
  }
  const std::string root_ =
      testing::TempDir() + "/cgroup." + std::to_string(getpid());
  ~CpuQuotaTest() override { std::filesystem::remove_all(root_); }
};

TEST_F(CpuQuotaTest, IsTheSmallestOfAGroupAndThoseAroundIt) {
  Group("/pod/box", "cpu.max", "150000 100000\n");
  EXPECT_EQ(CpuQuota(root_, "0::/pod/box\n"), 1.5);
  Group("/pod", "cpu.max", "50000 100000\n");
  EXPECT_EQ(CpuQuota(root_, "0::/pod/box\n"), 0.5);
  Group("/pod", "cpu.max", "max 100000\n");
  EXPECT_EQ(CpuQuota(root_, "0::/pod/box\n"), 1.5);
  // In a container the path is the host's, the quota in the root.
  Group("", "cpu.max", "200000 100000\n");
  EXPECT_EQ(CpuQuota(root_, "0::/kubepods/unseen\n"), 2);
}

TEST_F(CpuQuotaTest, OfVersion1StandsInTwoFilesAndMinusOneIsNone) {
  Group("/cpu,cpuacct/pod", "cpu.cfs_quota_us", "-1\n");
  Group("/cpu,cpuacct/pod", "cpu.cfs_period_us", "100000\n");
  const std::string self = "4:memory:/other\n2:cpu,cpuacct:/pod\n";
  EXPECT_EQ(CpuQuota(root_, self), std::numeric_limits<double>::infinity());
  Group("/cpu,cpuacct/pod", "cpu.cfs_quota_us", "300000\n");
  EXPECT_EQ(CpuQuota(root_, self), 3);
  EXPECT_GE(AvailableCpus(), 1u);
}

TEST(Json, AKeyThatAnObjectHasAlreadyIsRefusedWithBothPlaces) {
  const auto error = [](const std::string& text) {
    return std::string(ParseJson(text, "a.json").status().message());
  };
  EXPECT_EQ(error("{\"a\": 1,\n \"b\": [{}],\n \"a\": 2}"),
            "a.json:3: a: found the key again in column 2, first on line 1, "
            "expected each key once");
  // Written in another way, and deep inside.
  EXPECT_THAT(error(R"([{"x": {"reward": 1, "\u0072eward": 2}}])"),
              testing::StartsWith("a.json:1: reward: found the key again"));
  // Other objects, values and texts with a colon are no keys of this one.
  EXPECT_EQ(error(R"({"a": {"a": "a"}, "b": [{"a": 1}, {"a": "\"a\": 1"}]})"),
            "");
}

TEST(Json, NumbersThatNoDoubleHoldsAreRefused) {
  for (const char* text : {"NaN", "Infinity", "-Infinity", "1e999", "-1e999",
                           "[01]", "+1", "0x1p3", "1."}) {
    const absl::StatusOr<nlohmann::json> value = ParseJson(text, "a.json");
    EXPECT_FALSE(value.ok()) << text;
    EXPECT_THAT(std::string(value.status().message()),
                testing::StartsWith("a.json"))
        << text;
  }
  EXPECT_TRUE(ParseJson("1e308", "a.json").ok());
}

TEST(Json, AKeyThatNobodyReadsIsNamedWithTheNearestOne) {
  const nlohmann::json row = {{"token_id", 1}};
  EXPECT_EQ(
      CheckKeys(row, {"token_ids", "spans"}, "a.jsonl", "rows[0]").message(),
      "a.jsonl: rows[0].token_id: found an unknown key, expected "
      "token_ids");
  EXPECT_TRUE(CheckKeys(row, {"token_id"}, "a.jsonl").ok());
}

TEST(Printable, WhatATerminalWouldActOnIsWrittenAsNumbers) {
  EXPECT_EQ(Printable("a\tb\n\033[2J\r\a\x7f"),
            "a\tb\n\\x1b[2J\\x0d\\x07\\x7f");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "31m"),
            "\\xc2\\x9b31m");  // CSI in two bytes
  EXPECT_EQ(Printable("h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"),
            "h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
  EXPECT_EQ(Printable("\xff\xc3"), "\\xff\\xc3");
  EXPECT_EQ(OneLine("a\nb"), "a b");
}

TEST(Noise, DependsOnEveryPartOfTheKeyAndOnNothingElse) {
  const NoiseKey base{1, 2, 3, 4, 5, 6};
  std::set<double> seen{NoiseUniform(base)};
  for (int i = 0; i < 6; ++i) {
    NoiseKey k = base;
    if (i == 0) ++k.run_seed;
    if (i == 1) ++k.step;
    if (i == 2) ++k.group;
    if (i == 3) ++k.sample;
    if (i == 4) ++k.turn;
    if (i == 5) ++k.position;
    seen.insert(NoiseUniform(k));
  }
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_EQ(NoiseUniform(base), NoiseUniform(base));
}

TEST(Noise, IsUniform) {
  double sum = 0, square = 0;
  const int n = 20000;
  for (int i = 0; i < n; ++i) {
    const double u = NoiseUniform({7, 0, 0, 0, 0, static_cast<uint32_t>(i)});
    ASSERT_GT(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    square += u * u;
  }
  EXPECT_NEAR(sum / n, 0.5, 0.01);
  EXPECT_NEAR(square / n, 1.0 / 3, 0.01);
}

TEST(Queue, DrainsAfterCloseAndRefusesNewItems) {
  Queue<int> q(2);
  EXPECT_TRUE(q.Push(1));
  q.Close();
  EXPECT_FALSE(q.Push(2));
  EXPECT_EQ(q.Pop(), 1);
  EXPECT_EQ(q.Pop(), std::nullopt);
}

TEST(File, ADeviceIsWrittenToNotReplaced) {
  EXPECT_TRUE(WriteFileAtomic("/dev/null", "x").ok());
  const absl::Status full = WriteFileAtomic("/dev/full", "x");
  EXPECT_EQ(full.message(), "/dev/full: cannot write: No space left on device");
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
}

TEST(File, WriteIsReadBackAndMissingFilesAreNamed) {
  const std::string path =
      testing::TempDir() + "/atod_file_test." + std::to_string(getpid());
  ASSERT_TRUE(WriteFileAtomic(path, "abc").ok());
  EXPECT_EQ(ReadFile(path).value(), "abc");
  unlink(path.c_str());
  const auto gone = ReadFile(path);
  EXPECT_EQ(gone.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(gone.status().message().find(path), std::string::npos);
}

TEST(File, APipeIsReadToItsEndAndWithoutAWriterRefused) {
  const std::string path =
      testing::TempDir() + "/atod_pipe_test." + std::to_string(getpid());
  unlink(path.c_str());
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(ReadFile(path).status().message(),
            path + ": found a pipe that nobody writes to, expected a file");
  EXPECT_FALSE(WriteFileAtomic(path, "x").ok());  // nobody reads
  std::thread writer([&] {
    const int fd = open(path.c_str(), O_WRONLY);
    ASSERT_EQ(write(fd, "ab", 2), 2);
    ASSERT_EQ(write(fd, "c", 1), 1);
    close(fd);
  });
  EXPECT_EQ(ReadFile(path).value(), "abc");
  writer.join();
  unlink(path.c_str());
  EXPECT_EQ(ReadFile("/dev/null").value(), "");
  EXPECT_EQ(ReadFile(testing::TempDir()).status().message(),
            testing::TempDir() + ": found a folder, expected a file");
}

TEST(Disk, NetworkFileSystemsAreToldByTheirMount) {
  constexpr char kMounts[] =
      "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
      "30 22 0:40 / /home rw shared:7 master:2 - nfs4 host:/export rw\n"
      "31 30 0:41 / /home/me/my\\040disk rw - ext4 /dev/sdb1 rw\n"
      "32 22 0:42 / /mnt rw - fuse.sshfs me@host: rw\n"
      "33 32 0:43 / /mnt rw - fuse.fuse-overlayfs overlay rw\n";
  EXPECT_EQ(FileSystemType("/var/runs", kMounts), "ext4");
  EXPECT_EQ(FileSystemType("/homestead", kMounts), "ext4");
  EXPECT_EQ(FileSystemType("/home/me/runs", kMounts), "nfs4");
  EXPECT_EQ(FileSystemType("/home/me/my disk/runs", kMounts), "ext4");
  EXPECT_EQ(FileSystemType("/mnt/x", kMounts), "fuse.fuse-overlayfs");
  EXPECT_EQ(FileSystemType("/x", "nonsense\n- -\n"), "");
  for (const char* type : {"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs"}) {
    const absl::Status status = RefuseNetworkType("/home/run", type);
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << type;
    EXPECT_NE(status.message().find("/home/run"), std::string::npos);
    EXPECT_NE(status.message().find(type), std::string::npos);
  }
  for (const char* type : {"ext4", "xfs", "overlay", "tmpfs", "fuseblk", ""})
    EXPECT_TRUE(RefuseNetworkType("/home/run", type).ok()) << type;
  EXPECT_TRUE(RequireLocalDisk(testing::TempDir()).ok());
}

TEST(Disk, AFolderHasOneOwnerAtATime) {
  const std::string folder = testing::TempDir() + "owned";
  ASSERT_TRUE(MakeDirs(folder).ok());
  auto owner = FolderLock::Take(folder);
  ASSERT_TRUE(owner.ok()) << owner.status();
  EXPECT_TRUE(absl::IsFailedPrecondition(FolderLock::Take(folder).status()));
  owner->reset();
  EXPECT_TRUE(FolderLock::Take(folder).ok());
  EXPECT_FALSE(FolderLock::Take(folder + "/none").ok());
}

TEST(TooManyErrors, OneOfSeveralNeverIs) {
  EXPECT_FALSE(TooManyErrors(0, 0, 0));
  EXPECT_FALSE(TooManyErrors(1, 2, 0));
  EXPECT_TRUE(TooManyErrors(1, 1, 1));  // nothing was played
  EXPECT_FALSE(TooManyErrors(2, 8, 0.25));
  EXPECT_TRUE(TooManyErrors(3, 8, 0.25));
}

}  // namespace
}  // namespace atod
