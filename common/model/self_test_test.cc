#include "common/model/self_test.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::model {
namespace {

using testing::HasSubstr;

TEST(SelfTest, PassesOnThisMachine) {
  const absl::Status status = RunSelfTest(KernelOperations());
  EXPECT_TRUE(status.ok()) << status;
}

TEST(SelfTest, NamesTheBrokenOperationAndTheCpu) {
  std::vector<SelfTestOperation> operations = KernelOperations();
  // Each in turn gets one bit wrong in its last way.
  for (SelfTestOperation& broken : operations) {
    const SelfTestOperation sound = broken;
    broken.run = [&sound](int way) {
      std::vector<float> out = sound.run(way);
      if (way == sound.ways - 1) out.back() = std::nextafter(out.back(), 1e9f);
      return out;
    };
    const absl::Status status = RunSelfTest(operations);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(sound.name));
    EXPECT_THAT(std::string(status.message()), HasSubstr("CPU ("));
    broken = sound;
  }
}

TEST(SelfTest, EveryOperationComputesSomethingInSeveralWays) {
  for (const SelfTestOperation& operation : KernelOperations()) {
    EXPECT_GT(operation.ways, 2) << operation.name;
    const std::vector<float> values = operation.run(0);
    ASSERT_GE(values.size(), 19u) << operation.name;
    EXPECT_NE(values.front(), values.back()) << operation.name;
  }
}

TEST(SelfTest, AModelThatTheKernelsDoNotFitRunsOnTorch) {
  ModelConfig config;
  config.vocab_size = 40;
  config.hidden_size = 24;  // no multiple of 16
  config.intermediate_size = 48;
  config.num_hidden_layers = 1;
  config.num_attention_heads = 2;
  config.num_key_value_heads = 1;
  config.head_dim = 16;
  Qwen3 model = InitModel(config, "unit", 1).value();
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  EXPECT_TRUE(UseKernels(model, true).ok());
  const std::string log = testing::internal::GetCapturedStderr() +
                          testing::internal::GetCapturedStdout();
  EXPECT_THAT(log, HasSubstr("only within tolerances"));
  EXPECT_THAT(log, HasSubstr("hidden_size"));
}

}  // namespace
}  // namespace atod::model
