#include "services/cli/plan.h"

#include <filesystem>
#include <fstream>

#include "common/config/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

// 14 parameters: embedding 2x1, one layer 11 (2 norms of 1, q k v o of 1, 2
// head norms of 1, gate up down of 1), final norm 1.
model::ModelConfig OneOfEach() {
  model::ModelConfig m;
  m.vocab_size = 2;
  m.hidden_size = m.intermediate_size = m.num_hidden_layers = 1;
  m.num_attention_heads = m.num_key_value_heads = m.head_dim = 1;
  m.tie_word_embeddings = true;
  return m;
}

uint64_t BytesOf(const ProcessMemory& memory, const std::string& what) {
  for (const auto* items : {&memory.held, &memory.phases})
    for (const ProcessMemory::Item& item : *items)
      if (item.what == what) return item.bytes;
  return 0;
}

v1::RunConfig Config(const std::string& dtype) {
  v1::RunConfig c = config::LoadRunConfig({})->config;
  c.set_device("cpu");
  c.set_deterministic(false);
  c.mutable_model()->set_dtype(dtype);
  c.mutable_model()->set_max_context(8);
  c.mutable_sampling()->mutable_train()->set_max_tokens(4);
  c.mutable_optimizer()->set_micro_batch_tokens(16);
  return c;
}

// 14 parameters lie in memory for 128.
TEST(PlanTest, MastersAreBesideBfloat16OnlyAndGradientsAlwaysInFloat32) {
  const ProcessMemory f32 =
      LearnerMemory(Config("float32"), OneOfEach(), nullptr);
  EXPECT_EQ(BytesOf(f32, "parameters"), 128u * 4);
  EXPECT_EQ(BytesOf(f32, "float32 masters"), 0u);
  EXPECT_EQ(BytesOf(f32, "float32 gradients"), 128u * 4);
  EXPECT_EQ(BytesOf(f32, "AdamW's moments"), 128u * 8);
  const ProcessMemory bf16 =
      LearnerMemory(Config("bfloat16"), OneOfEach(), nullptr);
  EXPECT_EQ(BytesOf(bf16, "parameters"), 128u * 2);
  EXPECT_EQ(BytesOf(bf16, "float32 masters"), 128u * 4);
  EXPECT_EQ(BytesOf(bf16, "float32 gradients"), 128u * 4);
}

TEST(PlanTest, KeysAndValuesAreOfKeyHeadsAlone) {
  model::ModelConfig m = OneOfEach();
  m.num_attention_heads = 4;
  v1::RunConfig c = Config("bfloat16");
  c.mutable_rollout()->set_slots(3);
  c.mutable_model()->set_max_context(5);
  // 2 (keys, values) x 2 bytes x 1 layer x 1 wide x 3 slots x 5 tokens.
  EXPECT_EQ(BytesOf(RolloutMemory(c, m), "keys and values of 15 tokens"), 60u);
  c.mutable_rollout()->set_kv_tokens(7);
  EXPECT_EQ(BytesOf(RolloutMemory(c, m), "keys and values of 7 tokens"), 28u);
}

TEST(PlanTest, PhasesAreOneAtATimeAndAVersionLiesOnTheHost) {
  ProcessMemory p;
  p.held = {{"a", 1}, {"b", 10, true}};
  p.phases = {{"c", 100}, {"d", 200, true}, {"e", 150}};
  EXPECT_EQ(p.Host(false), 211u);
  EXPECT_EQ(p.Device(false), 0u);
  EXPECT_EQ(p.Host(true), 210u);
  EXPECT_EQ(p.Device(true), 151u);
}

TEST(PlanTest, WhatSharesAGpuIsAddedUpAndRefusedWhenItDoesNotFit) {
  ProcessMemory p;
  p.held = {{"a", 100}, {"b", 10, true}};
  EXPECT_TRUE(CheckGpuMemory({p, p}, 200).ok());
  EXPECT_THAT(CheckGpuMemory({p, p}, 199).message(),
              HasSubstr("memory of the GPU: found"));
}

TEST(PlanTest, SaysWhenTheMachineHasTooLittle) {
  ASSERT_GT(HostMemory(), 0u);
  const std::filesystem::path dir =
      std::filesystem::path(testing::TempDir()) / "plan_test_large";
  std::filesystem::create_directories(dir);
  model::ModelConfig m = OneOfEach();
  m.head_dim = 2;
  m.max_position_embeddings = 8;
  std::ofstream(dir / "config.json") << model::ModelConfigJson(m, "float32");
  v1::RunConfig c = Config("float32");
  c.mutable_model()->set_path(dir.string());
  EXPECT_THAT(Plan(c), Not(HasSubstr("too little")));
  c.mutable_rollout()->set_kv_tokens(HostMemory());
  EXPECT_THAT(Plan(c), HasSubstr("too little for all of them"));
}

TEST(PlanTest, SaysWhatAStepDoesAndWhichModelIsMissing) {
  const std::filesystem::path dir =
      std::filesystem::path(testing::TempDir()) / "plan_test_model";
  std::filesystem::create_directories(dir);
  model::ModelConfig model = OneOfEach();
  model.max_position_embeddings = 7;
  model.head_dim = 2;
  std::ofstream(dir / "config.json")
      << model::ModelConfigJson(model, "float32");
  v1::RunConfig c = config::LoadRunConfig({})->config;
  c.set_steps(10);
  c.mutable_model()->set_path(dir.string());
  c.mutable_model()->set_max_context(7);
  c.mutable_env()->set_max_turns(5);
  c.mutable_sampling()->mutable_train()->set_max_tokens(3);
  c.mutable_algorithm()->set_tasks_per_step(4);
  c.mutable_algorithm()->set_group_size(2);
  c.mutable_optimizer()->set_updates_per_step(2);
  c.add_teachers()->set_name("t");
  const std::string plan = Plan(c);
  EXPECT_THAT(plan, HasSubstr("8 episodes a step (80 in all)"));
  EXPECT_THAT(plan, HasSubstr("updates: 2 a step (20 in all), 4 episodes"));
  c.mutable_optimizer()->set_turns_per_update(9);
  EXPECT_THAT(Plan(c), HasSubstr("updates: one for 9 turns, at most 5 a step "
                                 "(50 in all), 1.6 episodes each"));
  c.mutable_algorithm()->set_recipe("grpo");
  c.mutable_algorithm()->set_kl_loss_coef(0.01);
  EXPECT_THAT(Plan(c), HasSubstr(" reference model's parameters"));
  EXPECT_THAT(Plan(c), Not(HasSubstr("teacher")));
  EXPECT_THAT(plan, HasSubstr("120 sampled, 280 read by the learner"));
  EXPECT_THAT(plan, HasSubstr("  learner: "));
  EXPECT_THAT(plan, HasSubstr("teacher t: unknown (no model is named)"));
  EXPECT_THAT(plan, HasSubstr("  together, on one machine: "));
}

}  // namespace
}  // namespace atod::cli
