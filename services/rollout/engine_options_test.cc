#include "services/rollout/engine_options.h"

#include <string>

#include "common/config/config.h"
#include "gtest/gtest.h"
#include "services/rollout/fakes.h"

namespace atod::rollout {
namespace {

v1::RunConfig Config(const std::string& yaml) {
  auto loaded = config::ParseRunConfig(yaml, "c.yaml");
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return loaded.ok() ? loaded->config : v1::RunConfig();
}

TEST(EngineOptionsOf, EverythingIsAsTheConfigurationSays) {
  const auto options = EngineOptionsOf(
      Config("deterministic: false\ndevice: cuda\n"
             "model: {dtype: bfloat16, max_context: 300}\n"
             "rollout: {slots: 5, kv_tokens: 900, batch_tokens: 70}\n"
             "sampling: {train: {max_tokens: 12}}\n"
             "env: {prompt_set: compact}\n"),
      *ByteTokenizer());
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->model.dtype, "bfloat16");
  EXPECT_EQ(options->model.device, "cuda");
  EXPECT_EQ(options->max_slots, 5);
  EXPECT_EQ(options->max_queue, 5);
  EXPECT_EQ(options->kv_tokens, 900);
  EXPECT_EQ(options->batch_tokens, 70);
  EXPECT_EQ(options->model.max_context, 300);
  EXPECT_EQ(options->model.deterministic, false);
}

}  // namespace
}  // namespace atod::rollout
