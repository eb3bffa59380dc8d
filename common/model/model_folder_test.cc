#include "common/model/model_folder.h"

#include <cmath>
#include <filesystem>
#include <map>

#include "common/model/model_folder_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace atod::model {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kTokenizer[] = "common/tokenizer/testdata/qwen2/tokenizer.json";
constexpr int32_t kTokens = 708, kEndOfText = 700, kImEnd = 702;

// A tiny model of zeros with the fixture's tokenizer.
class ModelFolderTest : public TensorsTest {
 protected:
  ModelFolderTest() : TensorsTest("model_folder") {}
  void SetUp() override {
    std::filesystem::copy(kTokenizer, dir_ + "/tokenizer.json");
    config_ = {{"model_type", "qwen3"},
               {"vocab_size", kTokens},
               {"hidden_size", 8},
               {"intermediate_size", 12},
               {"num_hidden_layers", 1},
               {"num_attention_heads", 2},
               {"num_key_value_heads", 1},
               {"head_dim", 4},
               {"max_position_embeddings", 64},
               {"tie_word_embeddings", true}};
    WriteConfig();
    FillTensors(ReadModelConfig(dir_).value());
    WriteTensors();
  }

  void Write(const char* name, const json& content) {
    ASSERT_TRUE(WriteFileAtomic(dir_ + "/" + name, content.dump()).ok());
  }
  void WriteConfig() { Write("config.json", config_); }
  std::string Error(int64_t max_context = 64) {
    const auto folder = CheckModelFolder(dir_, max_context);
    return folder.ok() ? "ok" : std::string(folder.status().message());
  }
  std::vector<int32_t> Stop() {
    const auto folder = CheckModelFolder(dir_, 0);
    EXPECT_TRUE(folder.ok()) << folder.status();
    return folder.ok() ? folder->stop_tokens : std::vector<int32_t>();
  }

  json config_;
};

TEST_F(ModelFolderTest, TheStopSetIsTheUnionOfAllDeclaredEndTokens) {
  EXPECT_THAT(Stop(), ElementsAre(kImEnd));  // nothing declared
  config_["eos_token_id"] = 5;
  WriteConfig();
  EXPECT_THAT(Stop(), ElementsAre(5));
  Write("generation_config.json", {{"eos_token_id", {7, 5, 6}}});
  EXPECT_THAT(Stop(), ElementsAre(5, 6, 7));
  Write("tokenizer_config.json", {{"eos_token", "<|endoftext|>"}});
  EXPECT_THAT(Stop(), ElementsAre(5, 6, 7, kEndOfText));
  Write("tokenizer_config.json",
        {{"eos_token", {{{"content", "<|im_end|>"}}, 8}}});
  EXPECT_THAT(Stop(), ElementsAre(5, 6, 7, 8, kImEnd));
  const auto tokenizer = Tokenizer::Load(dir_).value();
  EXPECT_EQ(StopTokens(dir_, *tokenizer).value(), Stop());
  std::filesystem::remove(dir_ + "/tokenizer.json");
  EXPECT_THAT(StopTokens(dir_).value(), ElementsAre(5, 6, 7));
}

TEST_F(ModelFolderTest, AnEndTokenThatIsNoTokenIsRefusedWithFileAndKey) {
  config_["eos_token_id"] = kTokens;
  WriteConfig();
  EXPECT_THAT(Error(), HasSubstr("/config.json: eos_token_id: found 708, "
                                 "expected a token id, 0 to 707"));
  config_["eos_token_id"] = "<|im_end|>";
  WriteConfig();
  EXPECT_THAT(Error(), HasSubstr("eos_token_id: found \"<|im_end|>\""));
  config_["eos_token_id"] = nullptr;
  WriteConfig();
  Write("generation_config.json", {{"eos_token_id", {702, -1}}});
  EXPECT_THAT(Error(),
              HasSubstr("/generation_config.json: eos_token_id: found -1"));
}

TEST_F(ModelFolderTest, MoreContextThanPositionsIsRefusedWithBothNumbers) {
  EXPECT_EQ(Error(64), "ok");
  EXPECT_THAT(Error(65), HasSubstr("config.json: max_position_embeddings: "
                                   "found 64, expected at least 65"));
}

TEST_F(ModelFolderTest, RopeOfAnotherKindIsRefusedUnderAnySpelling) {
  for (const json& plain :
       {json{{"rope_type", "default"}, {"rope_theta", 5e5}},
        json{{"type", "default"}},
        json{{"full_attention", {{"rope_type", "default"}}}}}) {
    config_["rope_parameters"] = plain;
    WriteConfig();
    EXPECT_EQ(Error(), "ok") << plain;
  }
  for (const json& other :
       {json{{"rope_type", "yarn"}, {"factor", 4.0}}, json{{"type", "yarn"}},
        json{{"rope_type", "default"}, {"type", "linear"}},
        json{{"rope_type", "default"}, {"factor", 2}},
        json{{"full_attention", {{"type", "dynamic"}}}},
        json{{"full_attention", {{"rope_type", "default"}}},
             {"sliding_attention", {{"rope_type", "default"}}}},
        json{{"partial_rotary_factor", 0.5}}, json("yarn")}) {
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
      config_.erase("rope_scaling");
      config_.erase("rope_parameters");
      config_[key] = other;
      WriteConfig();
      EXPECT_THAT(Error(), HasSubstr(std::string("config.json: ") + key))
          << other;
    }
  }
}

TEST_F(ModelFolderTest, ARopeOfAnotherKindIsNamedBeforeItsNumbers) {
  config_["rope_parameters"] = {{"factor", 4.0}, {"type", "yarn"}};
  WriteConfig();
  EXPECT_THAT(Error(), HasSubstr("rope_parameters.type: found \"yarn\""));
}

TEST_F(ModelFolderTest, ATiedHeadIsAnEqualCopyOrRefused) {
  values_["lm_head.weight"] = values_["model.embed_tokens.weight"];
  shapes_["lm_head.weight"] = {kTokens, 8};
  WriteTensors();
  EXPECT_EQ(Error(), "ok");
  values_["lm_head.weight"][3] = 0.25f;
  WriteTensors();
  EXPECT_THAT(Error(), HasSubstr("lm_head.weight: found another tensor than "
                                 "model.embed_tokens.weight"));
  shapes_["lm_head.weight"] = {8, kTokens};
  WriteTensors();
  EXPECT_THAT(Error(), HasSubstr("lm_head.weight: found shape [8,708]"));
}

TEST_F(ModelFolderTest, ATensorTooFewOrTooManyIsNamed) {
  values_["x"] = {1};
  shapes_["x"] = {1};
  WriteTensors();
  EXPECT_THAT(Error(), HasSubstr("x: found shape [1], expected no such"));
  values_.erase("x");
  values_.erase("model.norm.weight");
  WriteTensors();
  EXPECT_THAT(Error(), HasSubstr("model.norm.weight: found no such tensor"));
}

TEST_F(ModelFolderTest, TheTokenizerMustFitTheRowsAndHaveNoGap) {
  json tokenizer = json::parse(*ReadFile(kTokenizer));
  tokenizer["added_tokens"].push_back({{"id", 709}, {"content", "<far>"}});
  Write("tokenizer.json", tokenizer);
  EXPECT_THAT(Error(), HasSubstr("vocabulary: found 710 tokens, expected at "
                                 "most 708"));
  tokenizer["added_tokens"].erase(tokenizer["added_tokens"].size() - 1);
  tokenizer["added_tokens"].erase(5);
  Write("tokenizer.json", tokenizer);
  EXPECT_THAT(Error(), HasSubstr("vocabulary: found no token 705"));
}

TEST_F(ModelFolderTest, AFolderThatIsMissingSaysWhereModelsComeFrom) {
  const absl::Status status = CheckModelFolder(dir_ + "/none", 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("/none: found no such folder"));
  EXPECT_THAT(status.message(), HasSubstr("hf download"));
  std::filesystem::remove(dir_ + "/tokenizer.json");
  EXPECT_THAT(Error(), HasSubstr("tokenizer.json: found no such file"));
}

TEST_F(ModelFolderTest, ARunOrACheckpointIsNoModelButHasOne) {
  const std::string run = dir_ + "/run", last = run + "/checkpoints/last";
  ASSERT_TRUE(MakeDirs(last + "/model").ok());
  for (const auto& [dir, found] : std::map<std::string, std::string>{
           {run, "a run"}, {last, "a checkpoint"}}) {
    EXPECT_EQ(ReadModelConfig(dir).status().message(),
              dir + ": model: found " + found +
                  ", expected the folder of a model, such as " + last +
                  "/model");
  }
}

TEST_F(ModelFolderTest, ValuesThatAreNotFiniteAreCounted) {
  std::vector<float> values = {1, NAN, -INFINITY, 2};
  const TensorView view = {
      "t",
      "F32",
      {4},
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()),
                          16)};
  EXPECT_THAT(CheckFinite(view, "f").message(),
              HasSubstr("f: t: found 2 values that are NaN or infinite"));
  values = {1, 2, 3, 4};
  EXPECT_TRUE(CheckFinite(view, "f").ok());
}

TEST(ModelConfigTest, EveryKeyGoesOutAsItCameIn) {
  const std::string text =
      R"({"model_type": "qwen3", "vocab_size": 8, "hidden_size": 8,
 "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
 "eos_token_id": [3, 5], "bos_token_id": 1, "dtype": "bfloat16",
 "my_own_key": {"a": [1.5, null]}})";
  const ModelConfig config = ParseModelConfig(text, "f").value();
  EXPECT_EQ(ModelConfigJson(config, "bfloat16"), text);
  json expected = json::parse(text);
  expected["dtype"] = "float32";
  EXPECT_EQ(json::parse(ModelConfigJson(config, "float32")), expected);
}

TEST(CheckFiniteTest, CountsEveryValueOfALongTensor) {
  const auto error = [](const char* dtype, auto zero, auto infinite) {
    std::vector<decltype(zero)> values(3000, zero);
    for (const size_t i : {0, 1023, 1024, 2999}) values[i] = infinite;
    const TensorView tensor = {
        "t",
        dtype,
        {3000},
        absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()),
                            values.size() * sizeof(zero))};
    return std::string(CheckFinite(tensor, "f").message());
  };
  for (const std::string& found :
       {error("F32", 0.5f, INFINITY),
        error("BF16", uint16_t{0x3F80}, uint16_t{0xFF80}),
        error("F16", uint16_t{0x3C00}, uint16_t{0x7E00})})
    EXPECT_EQ(found,
              "f: t: found 4 values that are NaN or infinite, expected none");
}

}  // namespace
}  // namespace atod::model
