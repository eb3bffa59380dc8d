#include "common/model/exact/self_test.h"

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

}  // namespace
}  // namespace atod::model
