#include "common/weights/snapshot.h"

#include "common/weights/snapshot_file.h"
#include "gtest/gtest.h"

namespace atod::weights {
namespace {

WeightSnapshot TwoTensors() {
  WeightSnapshot s;
  s.data = "aaaabbbbbbbb";
  s.tensors = {{"b", "F32", {2, 1}, 8, 4, TensorChecksum("bbbbbbbb")},
               {"a", "F32", {1}, 4, 0, TensorChecksum("aaaa")}};
  std::swap(s.tensors[0], s.tensors[1]);
  s.root_hash = ComputeRootHash(s.tensors);
  return s;
}

TEST(Snapshot, VerifiesAndItsIdentityIgnoresOrder) {
  WeightSnapshot s = TwoTensors();
  EXPECT_TRUE(VerifySnapshot(s).ok()) << VerifySnapshot(s);
  std::swap(s.tensors[0], s.tensors[1]);
  EXPECT_EQ(ComputeRootHash(s.tensors), s.root_hash);
}

TEST(Snapshot, EveryChangeIsNoticed) {
  const WeightSnapshot good = TwoTensors();
  WeightSnapshot s = good;
  s.data[5] ^= 1;
  EXPECT_EQ(VerifySnapshot(s).code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(VerifySnapshot(s).message().find("tensor b"), std::string::npos);
  s = good;
  s.data += "x";
  EXPECT_FALSE(VerifySnapshot(s).ok());
  s = good;
  s.data.resize(8);
  EXPECT_FALSE(VerifySnapshot(s).ok());
  s = good;
  s.tensors[1].shape = {1, 2};
  EXPECT_FALSE(VerifySnapshot(s).ok());
  s = good;
  s.tensors[1].bytes = ~uint64_t{0};
  EXPECT_FALSE(VerifySnapshot(s).ok());
}

TEST(Snapshot, AFileKeepsTheIdentity) {
  const WeightSnapshot good = TwoTensors();
  const std::string path = testing::TempDir() + "snapshot.safetensors";
  ASSERT_TRUE(WriteSnapshotFile(path, good).ok());
  const absl::StatusOr<WeightSnapshot> read = ReadSnapshotFile(path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->root_hash, good.root_hash);
  EXPECT_TRUE(VerifySnapshot(*read).ok());
  EXPECT_FALSE(ReadSnapshotFile(path + ".none").ok());
}

}  // namespace
}  // namespace atod::weights
