#include "services/cli/plan.h"

#include <filesystem>
#include <fstream>

#include "common/config/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::cli {
namespace {

using testing::HasSubstr;

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

TEST(Plan, CountsMasterCopiesOnlyBesideBfloat16) {
  const LearnerMemory f32 = LearnerBytes(OneOfEach(), "float32", 0);
  EXPECT_EQ(f32.parameters, 14u * 4);
  EXPECT_EQ(f32.gradients, 14u * 4);
  EXPECT_EQ(f32.optimizer, 14u * 8);
  const LearnerMemory bf16 = LearnerBytes(OneOfEach(), "bfloat16", 0);
  EXPECT_EQ(bf16.parameters, 14u * 2);
  EXPECT_EQ(bf16.optimizer, 14u * 12);
}

TEST(Plan, ActivationsGrowWithTheMicroBatchAndTheLayers) {
  model::ModelConfig two = OneOfEach();
  two.num_hidden_layers = 2;
  const uint64_t one = LearnerBytes(OneOfEach(), "float32", 1).activations;
  EXPECT_GT(one, 0u);
  EXPECT_EQ(LearnerBytes(OneOfEach(), "float32", 10).activations, 10 * one);
  EXPECT_EQ(LearnerBytes(two, "float32", 1).activations, 2 * one);
}

TEST(Plan, KeysAndValuesAreOfKeyHeadsAlone) {
  model::ModelConfig m = OneOfEach();
  m.num_attention_heads = 4;
  // 2 (keys, values) x 2 bytes x 1 layer x 1 wide x 3 slots x 5 tokens.
  EXPECT_EQ(RolloutBytes(m, "bfloat16", 3, 5).cache_or_work, 60u);
}

TEST(Plan, SaysWhatAStepDoesAndWhichModelIsMissing) {
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
  EXPECT_THAT(Plan(c), HasSubstr(" reference model\n"));
  EXPECT_THAT(Plan(c), HasSubstr("teacher t: not asked by this recipe"));
  EXPECT_THAT(plan, HasSubstr("120 sampled, 280 read by the learner"));
  EXPECT_THAT(plan, HasSubstr("  learner: "));
  EXPECT_THAT(plan, HasSubstr("teacher t: unknown (no model is named)"));
}

}  // namespace
}  // namespace atod::cli
