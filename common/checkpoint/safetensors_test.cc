#include "common/checkpoint/safetensors.h"

#include <filesystem>
#include <random>

#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

using std::string_view_literals::operator""sv;
using ::testing::AllOf;
using ::testing::HasSubstr;

absl::Span<const std::byte> Bytes(std::string_view text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

std::string_view Text(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.data.data()),
          tensor.data.size()};
}

class SafetensorsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = ::testing::TempDir() + "/safetensors_" +
           ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(dir_);
    ASSERT_TRUE(MakeDirs(dir_).ok());
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::string Path(const std::string& name) const { return dir_ + "/" + name; }

  // A file with this header in front of this data.
  std::string WriteRaw(std::string header, const std::string& data,
                       size_t extra) {
    header.resize((header.size() + 7) / 8 * 8 + extra, ' ');
    std::string bytes;
    for (int i = 0; i < 8; ++i) {
      bytes += static_cast<char>(header.size() >> (8 * i) & 0xFF);
    }
    const std::string path = Path("raw.safetensors");
    EXPECT_TRUE(WriteFileAtomic(path, bytes + header + data).ok());
    return path;
  }

  std::string Error(const std::string& header, const std::string& data,
                    size_t extra = 0) {
    const auto file = SafetensorsFile::Open(WriteRaw(header, data, extra));
    return file.ok() ? "opened" : std::string(file.status().message());
  }

  std::string dir_;
};

std::vector<TensorView> SmallTensors() {
  return {{"mask", "BOOL", {3}, Bytes("\1\0\1"sv)},
          {"b", "F32", {2, 1}, Bytes("abcdefgh"sv)},
          {"a", "BF16", {1, 2}, Bytes("wxyz"sv)},
          {"scalar", "I64", {}, Bytes("12345678"sv)},
          {"empty", "F32", {0, 7}, {}}};
}

TEST_F(SafetensorsTest, WhatIsWrittenIsReadBack) {
  const std::string path = Path("model.safetensors");
  const std::vector<TensorView> tensors = SmallTensors();
  ASSERT_TRUE(WriteSafetensors(path, tensors, {{"format", "pt"}}).ok());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->metadata().at("format"), "pt");
  const auto dir = OpenSafetensorsDir(dir_);
  ASSERT_TRUE(dir.ok()) << dir.status();
  ASSERT_EQ((*dir)->tensors().size(), tensors.size());
  for (const TensorView& tensor : tensors) {
    const TensorView* read = (*dir)->Find(tensor.name);
    ASSERT_NE(read, nullptr) << tensor.name;
    EXPECT_EQ(read->dtype, tensor.dtype);
    EXPECT_EQ(read->shape, tensor.shape);
    EXPECT_EQ(Text(*read), Text(tensor));
    EXPECT_EQ(
        reinterpret_cast<uintptr_t>(read->data.data()) % DtypeSize(read->dtype),
        0u);
  }
  EXPECT_EQ((*dir)->Find("c"), nullptr);
}

TEST_F(SafetensorsTest, TheOrderOfTheTensorsDoesNotChangeTheFile) {
  std::vector<TensorView> tensors = SmallTensors();
  ASSERT_TRUE(WriteSafetensors(Path("1"), tensors).ok());
  std::reverse(tensors.begin(), tensors.end());
  ASSERT_TRUE(WriteSafetensors(Path("2"), tensors).ok());
  EXPECT_EQ(*ReadFile(Path("1")), *ReadFile(Path("2")));
}

TEST_F(SafetensorsTest, FaultsAreNamed) {
  const std::string eight = "12345678";
  EXPECT_EQ(
      Error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", eight),
      "opened");
  EXPECT_THAT(Error("[]", ""), HasSubstr("expected a JSON object"));
  EXPECT_THAT(Error("{\"a\":", ""), HasSubstr("header: found no JSON"));
  EXPECT_THAT(
      Error(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", eight),
      AllOf(HasSubstr("a.data_offsets: found 8 bytes"),
            HasSubstr("F32 of shape [3]")));
  EXPECT_THAT(
      Error(R"({"a":{"dtype":"F5","shape":[2],"data_offsets":[0,8]}})", eight),
      HasSubstr("a.dtype"));
  EXPECT_THAT(
      Error(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})",
            eight),
      HasSubstr("expected a range inside of 8 bytes"));
  EXPECT_THAT(
      Error(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})",
            eight),
      HasSubstr("a.shape: found -2"));
  EXPECT_THAT(Error(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,2],)"
                    R"("data_offsets":[0,8]}})",
                    eight),
              HasSubstr("a.data_offsets"));
  EXPECT_THAT(Error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                    R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                    eight),
              HasSubstr("b: found data that begins at 0, expected 4"));
  EXPECT_THAT(Error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                    R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                    eight),
              HasSubstr("a: found two tensors of this name"));
  EXPECT_THAT(
      Error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", eight),
      HasSubstr("data: found 8 bytes, expected 4"));
  EXPECT_EQ(Error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                  eight, 1),
            "opened");  // not aligned
  EXPECT_THAT(Error(R"({"__metadata__":{"k":1}})", ""),
              HasSubstr("__metadata__"));
  ASSERT_TRUE(WriteFileAtomic(Path("short"), "1234").ok());
  EXPECT_THAT(SafetensorsFile::Open(Path("short")).status().message(),
              HasSubstr("header size: found 4 bytes"));
  ASSERT_TRUE(WriteFileAtomic(Path("long"), std::string(9, '\xFF')).ok());
  EXPECT_THAT(SafetensorsFile::Open(Path("long")).status().message(),
              HasSubstr("header size: found 18446744073709551615"));
  EXPECT_EQ(SafetensorsFile::Open(Path("none")).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsTest, BytesThatAreMadeOneTensorAtATimeGiveTheSameFile) {
  const std::vector<std::string> data = {"12345678", "abcd"};
  std::vector<TensorView> tensors = {{"b", "F32", {2}, Bytes(data[0])},
                                     {"a", "F32", {1}, Bytes(data[1])}};
  ASSERT_TRUE(WriteSafetensors(Path("whole"), tensors).ok());
  for (TensorView& tensor : tensors) tensor.data = {};
  std::string one;  // overwritten by the next
  const auto made = [&](size_t i) {
    one = data[i];
    return Bytes(one);
  };
  ASSERT_TRUE(WriteSafetensors(Path("parts"), tensors, {}, made).ok());
  EXPECT_EQ(*ReadFile(Path("parts")), *ReadFile(Path("whole")));
  // What fails on the way leaves the file that was there, and nothing else.
  const auto fails =
      [&](size_t i) -> absl::StatusOr<absl::Span<const std::byte>> {
    if (i == 0) return absl::InternalError("device lost");
    return Bytes(data[i]);
  };
  EXPECT_THAT(WriteSafetensors(Path("parts"), tensors, {}, fails).message(),
              HasSubstr("device lost"));
  EXPECT_EQ(*ReadFile(Path("parts")), *ReadFile(Path("whole")));
}

TEST_F(SafetensorsTest, TensorsThatLieAboutTheirSizeAreNotWritten) {
  const TensorView wrong{"a", "F32", {3}, Bytes("12345678"sv)};
  EXPECT_THAT(WriteSafetensors(Path("x"), {wrong}).message(),
              HasSubstr("a: found 8 bytes of F32 [3]"));
  const TensorView right{"a", "F32", {2}, Bytes("12345678"sv)};
  EXPECT_FALSE(WriteSafetensors(Path("x"), {right, right}).ok());
  EXPECT_FALSE(std::filesystem::exists(Path("x")));
}

TEST_F(SafetensorsTest, ShardsMustAgreeWithTheirIndex) {
  const TensorView a{"a", "F32", {2}, Bytes("12345678"sv)};
  const TensorView b{"b", "F32", {1}, Bytes("abcd"sv)};
  ASSERT_TRUE(WriteSafetensors(Path("one.safetensors"), {a}).ok());
  ASSERT_TRUE(WriteSafetensors(Path("two.safetensors"), {b}).ok());
  const auto with_index = [&](const std::string& map) -> std::string {
    EXPECT_TRUE(WriteFileAtomic(Path("model.safetensors.index.json"),
                                "{\"weight_map\":{" + map + "}}")
                    .ok());
    const auto dir = OpenSafetensorsDir(dir_);
    if (!dir.ok()) return std::string(dir.status().message());
    return (*dir)->Find("a") != nullptr && (*dir)->Find("b") != nullptr
               ? "both"
               : "incomplete";
  };
  EXPECT_EQ(with_index(R"("a":"one.safetensors","b":"two.safetensors")"),
            "both");
  const auto shards = OpenSafetensorsDir(dir_).value();
  EXPECT_EQ(shards->PathOf("b"), Path("two.safetensors"));
  EXPECT_EQ(shards->PathOf("c"), Path("model.safetensors.index.json"));
  // What was given back is read again.
  shards->Release(*shards->Find("b"));
  EXPECT_EQ(shards->Find("b")->data, Bytes("abcd"sv));
  EXPECT_THAT(with_index(R"("a":"two.safetensors","b":"two.safetensors")"),
              HasSubstr("weight_map.a: found no such tensor"));
  EXPECT_THAT(with_index(R"("a":"one.safetensors","c":"two.safetensors")"),
              HasSubstr("b: found a tensor that the index does not place"));
  EXPECT_THAT(with_index(R"("a":"../one.safetensors")"),
              HasSubstr("weight_map.a: found \"../one.safetensors\""));
  EXPECT_THAT(with_index(R"("a":"none.safetensors")"),
              HasSubstr("none.safetensors: cannot open"));
}

TEST_F(SafetensorsTest, AModelAndAnIndexOfOthersInOneFolderAreAmbiguous) {
  const TensorView a{"a", "F32", {2}, Bytes("12345678"sv)};
  ASSERT_TRUE(WriteSafetensors(Path("one.safetensors"), {a}).ok());
  ASSERT_TRUE(WriteSafetensors(Path("model.safetensors"), {a}).ok());
  const auto index = [&](const std::string& map) {
    EXPECT_TRUE(WriteFileAtomic(Path("model.safetensors.index.json"),
                                "{\"weight_map\":{" + map + "}}")
                    .ok());
    return OpenSafetensorsDir(dir_).status();
  };
  EXPECT_THAT(index(R"("a":"one.safetensors")").message(),
              HasSubstr("model.safetensors: found a model beside "
                        "model.safetensors.index.json"));
  EXPECT_TRUE(index(R"("a":"model.safetensors")").ok());
}

// The format does not pad its header; readers of views want whole addresses.
TEST_F(SafetensorsTest, ATensorThatIsNotAlignedIsReadAsACopy) {
  const std::string header =
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}} )";
  ASSERT_NE((8 + header.size()) % 4, 0u);
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  ASSERT_TRUE(WriteFileAtomic(Path("x"), bytes + header + "12345678z").ok());
  const auto file = SafetensorsFile::Open(Path("x"));
  ASSERT_TRUE(file.ok()) << file.status();
  const TensorView& a = (*file)->tensors()[0];
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data.data()) % 4, 0u);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(a.data.data()), 8),
            "12345678");
  EXPECT_EQ(static_cast<char>((*file)->tensors()[1].data[0]), 'z');
}

// Whatever happens to the bytes: an error, or tensors that lie in the file.
TEST_F(SafetensorsTest, DamagedFilesAreRefusedOrReadWithoutACrash) {
  const std::string path = Path("model.safetensors");
  ASSERT_TRUE(WriteSafetensors(path, SmallTensors(), {{"k", "v"}}).ok());
  const std::string whole = *ReadFile(path);
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string bytes = whole;
    const int kind = static_cast<int>(random() % 3);
    if (kind == 0) {
      bytes.resize(random() % whole.size());
    } else if (kind == 1) {
      bytes.insert(random() % whole.size(), 1 + random() % 9, 'x');
    } else {
      for (uint32_t n = 1 + random() % 3; n > 0; --n) {
        bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
      }
    }
    const std::string damaged = Path("damaged");
    {
      // Not WriteFileAtomic: 4000 syncs take their time.
      FILE* out = std::fopen(damaged.c_str(), "wb");
      ASSERT_NE(out, nullptr);
      std::fwrite(bytes.data(), 1, bytes.size(), out);
      std::fclose(out);
    }
    const auto file = SafetensorsFile::Open(damaged);
    if (!file.ok()) {
      EXPECT_THAT(file.status().message(), HasSubstr("damaged"));
      ++refused;
      continue;
    }
    EXPECT_EQ(kind, 2) << "a file of another length was accepted";
    size_t total = 0;
    for (const TensorView& tensor : (*file)->tensors()) {
      EXPECT_NE(bytes.find(Text(tensor)), std::string::npos);
      total += tensor.data.size();
    }
    EXPECT_EQ(total, 23u);
  }
  EXPECT_GT(refused, 3000);
}

}  // namespace
}  // namespace atod
