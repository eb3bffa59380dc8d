#include "common/device/device.h"

#include <vector>

#include "common/device/kernels.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

using ::testing::HasSubstr;

// The product runs these in double; in float they have to be good to 1e-6.
TEST(Kernels, FloatTurnWeightsAreTheReferenceOnes) {
  const std::vector<int32_t> token_begin = {0, 2, 3, 7, 9};
  const std::vector<float> student = {-.5,  -1,   -.125, -.25, -.25,
                                      -.25, -.25, -.5,   -.5};
  const std::vector<float> teacher = {-.25, -.5, -2.125, -.25, -.5,
                                      -.25, -.5, -1,     -1.5};
  float d[4], h[4], d_norm[4], h_norm[4], w[4];
  for (int k = 0; k < 4; ++k)
    kernels::TurnStatistics(student.data(), teacher.data(),
                            kernels::RowsOf(token_begin.data(), k), &d[k],
                            &h[k]);
  EXPECT_TRUE(kernels::WeighTurns(token_begin.data(), {0, 4},
                                  kernels::TdurOptions(), d, h, d_norm, h_norm,
                                  w));
  const float expected[] = {1, 1, .2f, 11.f / 15};
  for (int k = 0; k < 4; ++k) EXPECT_NEAR(w[k], expected[k], 1e-6);
  const float first =
      kernels::HybridAdvantage(.55f, w[0], teacher[0] - student[0], 1.5f, 1.f)
          .distillation;
  EXPECT_NEAR(first + 1.5f, 131.f / 80, 1e-6);
}

TEST(Kernels, FloatGroupStatisticsAreTheReferenceOnes) {
  const std::vector<int32_t> member = {0, 1, 2, 3, 4, 5, 6, 7};
  const std::vector<float> reward = {10, 0, 0, 10, 0, 0, 0, 10};
  std::vector<float> advantage(8);
  EXPECT_FALSE(kernels::NormalizeGroup(member.data(), {0, 8}, {}, reward.data(),
                                       advantage.data()));
  for (int i = 0; i < 8; ++i)
    EXPECT_NEAR(advantage[i], reward[i] > 0 ? 1.2076145f : -0.7245687f, 1e-6);
}

TEST(OpenDevice, AnUnknownNameIsRefused) {
  EXPECT_EQ(OpenDevice("tpu").status().message(),
            "device: found \"tpu\", expected \"cpu\" or \"cuda\"");
}

TEST(OpenDevice, CpuIsAlwaysThere) {
  const auto device = OpenDevice("cpu");
  ASSERT_TRUE(device.ok());
  EXPECT_EQ((*device)->name(), "cpu");
}

// What this says depends on the machine; what it never does is crash or stay
// silent about what is missing.
TEST(OpenDevice, CudaWorksOrSaysWhatIsMissing) {
  const auto device = OpenDevice("cuda");
  if (device.ok()) {
    EXPECT_THAT((*device)->name(), HasSubstr("cuda:0"));
  } else {
    EXPECT_EQ(device.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(device.status().message()), HasSubstr("expected"));
  }
}

}  // namespace
}  // namespace atod
