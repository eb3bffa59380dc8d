#include "common/model/verify_model.h"

#include <cmath>
#include <filesystem>
#include <map>

#include "common/checkpoint/manifest.h"
#include "common/model/model_folder_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class VerifyModelTest : public TensorsTest {
 protected:
  VerifyModelTest() : TensorsTest("verify_model") {}
  void SetUp() override {
    config_ = {.vocab_size = 40,
               .hidden_size = 8,
               .intermediate_size = 12,
               .num_hidden_layers = 2,
               .num_attention_heads = 2,
               .num_key_value_heads = 1,
               .head_dim = 4,
               .max_position_embeddings = 64,
               .tie_word_embeddings = true};
    ASSERT_TRUE(WriteFileAtomic(dir_ + "/config.json",
                                ModelConfigJson(config_, "float32"))
                    .ok());
    FillTensors(config_);
    WriteTensors();
  }

  std::vector<std::string> Faults() {
    const auto report = VerifyModel(dir_);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? report->faults : std::vector<std::string>();
  }

  ModelConfig config_;
};

TEST_F(VerifyModelTest, AGoodModelHasNoFaultAndARowForEveryTensor) {
  const auto report = VerifyModel(dir_);
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(report->faults, IsEmpty());
  EXPECT_EQ(report->tensors.size(), values_.size());
  EXPECT_EQ(report->tensors[0].name, "model.embed_tokens.weight");
  EXPECT_EQ(report->tensors[0].bytes, 40u * 8 * 4);
}

TEST_F(VerifyModelTest, EveryFaultOfTheTensorsIsListed) {
  values_.erase("model.norm.weight");
  values_["surplus"] = {1, 2};
  shapes_["surplus"] = {2};
  shapes_["model.embed_tokens.weight"] = {8, 40};
  values_["model.layers.1.mlp.up_proj.weight"][3] = NAN;
  WriteTensors();
  EXPECT_THAT(
      Faults(),
      ElementsAre(
          HasSubstr("embed_tokens.weight: found shape [8,40], expected shape "
                    "[40,8]"),
          HasSubstr("model.norm.weight: found no such tensor, expected shape "
                    "[8]"),
          HasSubstr("surplus: found shape [2], expected no such tensor"),
          HasSubstr("layers.1.mlp.up_proj.weight: found 1 values that are "
                    "NaN")));
}

TEST_F(VerifyModelTest, EveryExpertHasARowAndAFault) {
  config_.num_experts = 3;
  config_.num_experts_per_tok = 2;
  config_.moe_intermediate_size = 6;
  ASSERT_TRUE(WriteFileAtomic(dir_ + "/config.json",
                              ModelConfigJson(config_, "float32"))
                  .ok());
  values_.clear();
  FillTensors(config_);
  WriteTensors();
  const auto report = VerifyModel(dir_);
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(report->faults, IsEmpty());
  EXPECT_EQ(report->tensors.size(), 2u + 2 * (8 + 1 + 3 * 3));
  values_.erase("model.layers.0.mlp.gate.weight");
  values_["model.layers.1.mlp.experts.2.down_proj.weight"][0] = INFINITY;
  shapes_["model.layers.1.mlp.experts.0.up_proj.weight"] = {8, 6};
  WriteTensors();
  EXPECT_THAT(Faults(),
              ElementsAre(HasSubstr("layers.0.mlp.gate.weight: found no such "
                                    "tensor, expected shape [3,8]"),
                          HasSubstr("experts.0.up_proj.weight: found shape "
                                    "[8,6], expected shape [6,8]"),
                          HasSubstr("experts.2.down_proj.weight: found 1 "
                                    "values that are NaN")));
}

TEST_F(VerifyModelTest, WhatEndsAResponseIsSaid) {
  ASSERT_TRUE(WriteFileAtomic(dir_ + "/generation_config.json",
                              R"({"eos_token_id": [7, 3]})")
                  .ok());
  const auto report = VerifyModel(dir_);
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(report->stop_tokens, ElementsAre(3, 7));
  ASSERT_TRUE(WriteFileAtomic(dir_ + "/generation_config.json",
                              R"({"eos_token_id": 40})")
                  .ok());
  EXPECT_THAT(Faults(), ElementsAre(HasSubstr("eos_token_id: found 40")));
}

TEST_F(VerifyModelTest, AChangedFileBreaksItsManifest) {
  ASSERT_TRUE(WriteManifest(dir_, {}).ok());
  EXPECT_THAT(Faults(), IsEmpty());
  values_["model.norm.weight"][0] = 0.25f;
  WriteTensors();
  EXPECT_THAT(Faults(), ElementsAre(HasSubstr("model.safetensors: xxh3_128")));
}

TEST_F(VerifyModelTest, ACheckpointOfARunHoldsItsModelInAFolder) {
  const std::string run = dir_ + "_run";
  std::filesystem::remove_all(run);
  ASSERT_TRUE(MakeDirs(run).ok());
  std::filesystem::copy(dir_, run + "/model");
  ASSERT_TRUE(WriteFileAtomic(run + "/state.json", "{}").ok());
  ASSERT_TRUE(WriteManifest(run, {}).ok());
  auto report = VerifyModel(run);
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(report->faults, IsEmpty());
  EXPECT_EQ(report->tensors.size(), values_.size());
  EXPECT_EQ(report->manifest_files, 3u);
  ASSERT_TRUE(WriteFileAtomic(run + "/state.json", "[]").ok());
  report = VerifyModel(run);
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(report->faults, ElementsAre(HasSubstr("state.json")));
  std::filesystem::remove_all(run);
}

TEST_F(VerifyModelTest, ATruncatedFileIsAFault) {
  const std::string path = dir_ + "/model.safetensors";
  const std::string bytes = *ReadFile(path);
  ASSERT_TRUE(WriteFileAtomic(path, bytes.substr(0, bytes.size() / 2)).ok());
  EXPECT_THAT(Faults(), ElementsAre(HasSubstr("data_offsets: found")));
}

TEST_F(VerifyModelTest, ATokenizerBeyondTheVocabularyIsAFault) {
  std::filesystem::copy("common/tokenizer/testdata/gpt2/tokenizer.json",
                        dir_ + "/tokenizer.json");
  EXPECT_THAT(Faults(), ElementsAre(HasSubstr("expected at most 40")));
}

TEST_F(VerifyModelTest, ABrokenConfigIsAFaultAndNoFolderAnError) {
  ASSERT_TRUE(WriteFileAtomic(dir_ + "/config.json", "{}").ok());
  EXPECT_THAT(Faults(), ElementsAre(HasSubstr("config.json")));
  EXPECT_EQ(VerifyModel(dir_ + "/none").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace atod::model
