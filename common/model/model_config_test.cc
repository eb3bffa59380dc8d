#include "common/model/model_config.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace atod::model {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// As transformers 5 writes one, without the keys that shape nothing.
json MoeJson() {
  return {
      {"architectures", {"Qwen3MoeForCausalLM"}},
      {"model_type", "qwen3_moe"},
      {"vocab_size", 300},
      {"hidden_size", 64},
      {"intermediate_size", 96},
      {"moe_intermediate_size", 32},
      {"num_hidden_layers", 2},
      {"num_attention_heads", 4},
      {"num_key_value_heads", 2},
      {"head_dim", 32},
      {"num_local_experts", 3},
      {"num_experts_per_tok", 2},
      {"norm_topk_prob", true},
      {"decoder_sparse_step", 1},
      {"mlp_only_layers", json::array()},
      {"rope_parameters", {{"rope_theta", 10000.0}, {"rope_type", "default"}}},
      {"dtype", "float32"}};
}

std::string Error(const json& config) {
  return std::string(ParseModelConfig(config.dump(), "c").status().message());
}

TEST(ModelConfigTest, ExpertsAreReadUnderTheNamesOfOldAndNewTransformers) {
  json moe = MoeJson();
  const ModelConfig c = ParseModelConfig(moe.dump(), "c").value();
  EXPECT_EQ(c.num_experts, 3);
  EXPECT_EQ(c.num_experts_per_tok, 2);
  EXPECT_EQ(c.moe_intermediate_size, 32);
  EXPECT_TRUE(c.norm_topk_prob);
  moe.erase("num_local_experts");
  moe["num_experts"] = 3;
  EXPECT_EQ(ArchHash(ParseModelConfig(moe.dump(), "c").value()), ArchHash(c));
  moe["num_local_experts"] = 4;
  EXPECT_THAT(Error(moe),
              HasSubstr("num_local_experts: found 4, expected num_experts, 3"));
}

TEST(ModelConfigTest, AMixtureThatIsNotSupportedIsRefusedByName) {
  const auto error = [](const char* key, json value) {
    json moe = MoeJson();
    moe[key] = std::move(value);
    return Error(moe);
  };
  EXPECT_THAT(error("mlp_only_layers", {1}), HasSubstr("mlp_only_layers"));
  EXPECT_THAT(error("decoder_sparse_step", 2),
              HasSubstr("decoder_sparse_step: found 2, expected 1"));
  EXPECT_THAT(error("num_experts_per_tok", 4),
              HasSubstr("found 4, expected at most num_experts, 3"));
  EXPECT_THAT(error("num_experts_per_tok", nullptr),
              HasSubstr("num_experts_per_tok: found nothing"));
  EXPECT_THAT(error("num_local_experts", nullptr),
              HasSubstr("num_experts: found nothing"));
  EXPECT_THAT(error("num_local_experts", 1 << 20),
              HasSubstr("num_local_experts: found 1048576"));
  EXPECT_THAT(error("moe_intermediate_size", "x"),
              HasSubstr("moe_intermediate_size"));
  EXPECT_THAT(error("norm_topk_prob", 1), HasSubstr("norm_topk_prob"));
  EXPECT_THAT(error("num_hidden_layers", 0), HasSubstr("num_hidden_layers"));
  json wide = MoeJson();
  wide.erase("head_dim");  // 64 / 128 is none
  wide["num_attention_heads"] = 128;
  EXPECT_THAT(Error(wide), HasSubstr("head_dim: found 0"));
}

TEST(ModelConfigTest, AMixtureIsWrittenAsItIsRead) {
  ModelConfig c = ParseModelConfig(MoeJson().dump(), "c").value();
  c.source.clear();
  const std::string text = ModelConfigJson(c, "bfloat16");
  EXPECT_EQ(json::parse(text)["architectures"][0], "Qwen3MoeForCausalLM");
  const ModelConfig again = ParseModelConfig(text, "c").value();
  EXPECT_EQ(ArchHash(again), ArchHash(c));
  EXPECT_EQ(again.intermediate_size, 96);
}

TEST(ModelConfigTest, WhatShapesAMixtureIsInItsHash) {
  const ModelConfig c = ParseModelConfig(MoeJson().dump(), "c").value();
  const auto differs = [&](auto change) {
    ModelConfig other = c;
    change(other);
    return ArchHash(other) != ArchHash(c);
  };
  EXPECT_TRUE(differs([](ModelConfig& o) { o.num_experts = 4; }));
  EXPECT_TRUE(differs([](ModelConfig& o) { o.num_experts_per_tok = 1; }));
  EXPECT_TRUE(differs([](ModelConfig& o) { o.moe_intermediate_size = 48; }));
  EXPECT_TRUE(differs([](ModelConfig& o) { o.norm_topk_prob = false; }));
  EXPECT_FALSE(differs([](ModelConfig& o) { o.intermediate_size = 1; }));
}

TEST(ModelConfigTest, ExpertsOfALayerAreTwoTensorsOneBehindTheOther) {
  const ModelConfig c = ParseModelConfig(MoeJson().dump(), "c").value();
  std::vector<std::string> mlp;
  for (const ParameterSpec& spec : ParameterSpecs(c)) {
    const std::string prefix = "model.layers.1.mlp.";
    if (!spec.name.starts_with(prefix)) continue;
    mlp.push_back(spec.name.substr(prefix.size()));
    EXPECT_THAT(spec.shape, mlp.back() == "gate.weight" ? ElementsAre(3, 64)
                            : mlp.back().ends_with("down_proj.weight")
                                ? ElementsAre(64, 32)
                                : ElementsAre(32, 64));
  }
  EXPECT_THAT(
      mlp,
      ElementsAre("gate.weight", "experts.0.gate_proj.weight",
                  "experts.0.up_proj.weight", "experts.1.gate_proj.weight",
                  "experts.1.up_proj.weight", "experts.2.gate_proj.weight",
                  "experts.2.up_proj.weight", "experts.0.down_proj.weight",
                  "experts.1.down_proj.weight", "experts.2.down_proj.weight"));
}

}  // namespace
}  // namespace atod::model
