#include "common/checkpoint/manifest.h"

#include <filesystem>

#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

using ::testing::HasSubstr;

class ManifestTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = ::testing::TempDir() + "/manifest";
    std::filesystem::remove_all(dir_);
    ASSERT_TRUE(MakeDirs(dir_ + "/model").ok());
    Write("state.bin", "12345");
    Write("model/config.json", "{}");
    Write("empty", "");
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void Write(const std::string& name, const std::string& bytes) {
    ASSERT_TRUE(WriteFileAtomic(dir_ + "/" + name, bytes).ok());
  }
  std::string Error() {
    const auto manifest = VerifyManifest(dir_);
    return manifest.ok() ? "ok" : std::string(manifest.status().message());
  }

  std::string dir_;
};

TEST_F(ManifestTest, ACompleteFolderVerifiesAndKeepsItsInfo) {
  ASSERT_TRUE(WriteManifest(dir_, {{"step", 7}}).ok());
  const auto manifest = VerifyManifest(dir_);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->info["step"], 7);
  ASSERT_EQ(manifest->files.size(), 3u);
  EXPECT_EQ(manifest->files[0].path, "empty");
  EXPECT_EQ(manifest->files[1].path, "model/config.json");
  EXPECT_EQ(manifest->files[2].size, 5u);
  EXPECT_EQ(manifest->files[2].xxh3_128, HashHex("12345"));
}

TEST_F(ManifestTest, AFolderWithoutManifestIsIncomplete) {
  EXPECT_EQ(VerifyManifest(dir_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ManifestTest, EveryChangedFileIsNamed) {
  ASSERT_TRUE(WriteManifest(dir_, {}).ok());
  Write("state.bin", "12346");
  EXPECT_THAT(Error(), HasSubstr("state.bin: xxh3_128: found"));
  EXPECT_EQ(VerifyManifest(dir_).status().code(), absl::StatusCode::kDataLoss);
  Write("empty", "x");
  std::filesystem::remove(dir_ + "/model/config.json");
  const auto manifest = ReadManifest(dir_);
  ASSERT_TRUE(manifest.ok());
  const std::vector<Problem> faults = ManifestFaults(dir_, *manifest);
  ASSERT_EQ(faults.size(), 3u);
  EXPECT_EQ(faults[0].found, "1 bytes");
  EXPECT_EQ(faults[1].found, "no such file");
}

TEST_F(ManifestTest, WritingAgainCoversTheFilesOfNow) {
  ASSERT_TRUE(WriteManifest(dir_, {}).ok());
  Write("state.bin", "new");
  Write("more", "x");
  ASSERT_TRUE(WriteManifest(dir_, {}).ok());
  const auto manifest = VerifyManifest(dir_);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->files.size(), 4u);
}

TEST_F(ManifestTest, BrokenManifestsAreRefused) {
  Write(kManifestName, "{\"files\": 1}");
  EXPECT_THAT(Error(), HasSubstr("MANIFEST.json: files: found 1"));
  Write(kManifestName, "{\"files\": []}");
  EXPECT_THAT(Error(), HasSubstr("MANIFEST.json: files: found [], expected"));
  Write(kManifestName, "{");
  EXPECT_THAT(Error(), HasSubstr("MANIFEST.json:1: found an early end"));
  for (const char* path : {"/etc/passwd", "../x", "a/../../x", "", "."}) {
    Write(kManifestName, std::string(R"({"files":[{"path":")") + path +
                             R"(","size":1,"xxh3_128":"00"}]})");
    EXPECT_THAT(Error(), HasSubstr("files[0]: found")) << path;
  }
}

}  // namespace
}  // namespace atod
