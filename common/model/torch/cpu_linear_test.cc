#include "common/model/torch/cpu_linear.h"

#include "common/model/exact/gemm_avx512.h"
#include "gtest/gtest.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

// Of rounding a sum in bfloat16, whose numbers have 8 bits.
void ExpectNear(const torch::Tensor& found, const torch::Tensor& expected) {
  ASSERT_EQ(found.sizes(), expected.sizes());
  const torch::Tensor gap = (found.to(torch::kFloat32) - expected).abs();
  EXPECT_LT((gap / (expected.abs() + 1)).max().item<float>(), 1.0 / 128);
}

// Rows for each way to go: one, a few, a tile, more than a block.
TEST(CpuLinear, EveryNumberOfRowsIsTheProduct) {
  if (!Avx512Supported()) GTEST_SKIP() << "SKIPPED: no AVX-512";
  torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  for (const int64_t out : {96, 100}) {
    const torch::Tensor weight = torch::randn({out, 64}).to(torch::kBFloat16);
    const auto packed = CpuLinear::Make(weight, false);
    const auto stored = CpuLinear::AsStored(weight);
    for (const int64_t rows : {1, 2, 3, 4, 5, 12, 16, 17, 40, 400}) {
      const torch::Tensor x = torch::randn({rows, 64}).to(torch::kBFloat16);
      const torch::Tensor expected =
          torch::mm(x.to(torch::kFloat32), weight.to(torch::kFloat32).t());
      ExpectNear(packed->Apply(x), expected);
      ExpectNear(stored->Apply(x), expected);
      EXPECT_LT((packed->ApplyFloat(x) - expected).abs().max().item<float>(),
                1e-4);
    }
  }
}

TEST(CpuLinear, WhatWasLaidOutInPlaceIsPutBack) {
  if (!Avx512Supported()) GTEST_SKIP() << "SKIPPED: no AVX-512";
  torch::NoGradGuard no_grad;
  const torch::Tensor weight = torch::randn({96, 64}).to(torch::kBFloat16);
  const torch::Tensor before = weight.clone();
  const auto packed = CpuLinear::Make(weight, true);
  EXPECT_FALSE(torch::equal(weight, before));
  packed->Restore(weight);
  EXPECT_TRUE(torch::equal(weight, before));
  CpuLinear::AsStored(weight)->Restore(weight);
  EXPECT_TRUE(torch::equal(weight, before));
}

}  // namespace
}  // namespace atod::model
