#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "common/base/rng.h"
#include "common/model/exact/cpu_kernels.h"
#include "common/model/exact/gemm_avx512.h"
#include "gtest/gtest.h"

namespace atod::model {
namespace {

struct Product {
  int64_t m, k, n;
  bool transposed, accumulate;
  std::vector<float> a, panels, c;

  explicit Product(uint64_t seed) {
    Rng rng(seed);
    m = 1 + static_cast<int64_t>(rng.Below(40));
    k = 1 + static_cast<int64_t>(rng.Below(seed % 8 == 0 ? 900 : 70));
    n = 1 + static_cast<int64_t>(rng.Below(seed % 5 == 0 ? 400 : 70));
    transposed = rng.Below(2) == 1;
    accumulate = rng.Below(2) == 1;
    const auto random = [&rng](int64_t count) {
      std::vector<float> out(count);
      for (float& x : out) x = static_cast<float>(rng.Normal());
      return out;
    };
    a = random(m * k);
    const std::vector<float> b = random(k * n);
    panels.resize(k * PadToPanel(n));
    PackPanels(b.data(), k, n, n, 1, panels.data());
    c = random(m * n);
  }

  GemmA left() const { return {a.data(), transposed ? m : k, transposed}; }
  GemmB right() const { return {panels.data(), k * kPanel}; }

  // The chain of fused multiply-adds that both kernels promise.
  std::vector<float> Chain() const {
    std::vector<float> out = c;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        float sum = accumulate ? c[i * n + j] : 0.0f;
        for (int64_t p = 0; p < k; ++p)
          sum = std::fma(
              transposed ? a[p * m + i] : a[i * k + p],
              panels[j / kPanel * k * kPanel + p * kPanel + j % kPanel], sum);
        out[i * n + j] = sum;
      }
    }
    return out;
  }
};

template <typename Kernel>
void ExpectChains(Kernel kernel) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    Product p(seed);
    const std::vector<float> expected = p.Chain();
    kernel(p.m, p.k, p.n, p.left(), p.right(), p.c.data(), p.n, p.accumulate);
    ASSERT_EQ(std::memcmp(p.c.data(), expected.data(),
                          expected.size() * sizeof(float)),
              0)
        << "seed " << seed << ": " << p.m << " x " << p.k << " x " << p.n;
  }
}

TEST(GemmTest, OnAvx2EveryOutputIsOneChainInTheOrderOfK) {
  if (!CpuKernelsSupported()) GTEST_SKIP() << "no AVX2 and FMA here";
  ExpectChains(GemmAvx2);
}

TEST(GemmTest, OnAvx512EveryOutputIsTheSameChain) {
  if (!Avx512Supported()) GTEST_SKIP() << "no AVX-512 here";
  ExpectChains(GemmAvx512);
}

float FromBf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &wide, sizeof(x));
  return x;
}

uint16_t RoundToBf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(x));
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

TEST(GemmTest, Bfloat16ProductsAreSummedInFloat32AndRoundedOnce) {
  if (!Avx512Supported()) GTEST_SKIP() << "no AVX-512 here";
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Rng rng(seed);
    const int64_t k = 1 + static_cast<int64_t>(rng.Below(200));
    const int64_t n = 1 + static_cast<int64_t>(rng.Below(100));
    const int64_t m = 1 + static_cast<int64_t>(rng.Below(60));
    ASSERT_LE(m, Bf16BlockRows(k));
    const auto random = [&rng](int64_t count) {
      std::vector<uint16_t> out(count);
      for (uint16_t& x : out) x = RoundToBf16(static_cast<float>(rng.Normal()));
      return out;
    };
    const std::vector<uint16_t> x = random(m * k), w = random(n * k);
    std::vector<uint16_t> panels(k * PadToPanel(n)), out(m * n);
    for (int64_t j = 0; j < n; j += kPanel)
      PackBf16Panel(k, std::min(kPanel, n - j), &w[j * k], &panels[j * k]);
    std::vector<float> sums(m * n), scratch(Bf16Scratch(k));
    GemmBf16Avx512(m, k, n, x.data(), panels.data(), n, out.data(), sums.data(),
                   scratch.data());
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        float sum = 0;
        for (int64_t p = 0; p < k; ++p)
          sum = std::fma(FromBf16(x[i * k + p]), FromBf16(w[j * k + p]), sum);
        ASSERT_EQ(sums[i * n + j], sum) << seed;
        ASSERT_EQ(out[i * n + j], RoundToBf16(sum)) << seed;
      }
    }
  }
}

}  // namespace
}  // namespace atod::model
