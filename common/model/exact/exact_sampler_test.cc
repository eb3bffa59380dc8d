#include "common/model/exact/exact_sampler.h"

#include <cmath>

#include "common/base/rng.h"
#include "gtest/gtest.h"

namespace atod::model {
namespace {

const std::vector<float> kLogits{0, 1, 2, -1};

TEST(ExactSamplerTest, FrequenciesFollowTheDistribution) {
  ExactSampler sampler;
  Rng rng(1);
  const int n = 20000;
  std::vector<int> count(4);
  for (int i = 0; i < n; ++i)
    ++count[sampler
                .Sample(kLogits.data(), 4,
                        {.temperature = 0.5f, .noise = rng.Uniform()})
                .token];
  double total = 0;
  for (const float l : kLogits) total += std::exp(2 * l);
  for (int i = 0; i < 4; ++i)
    EXPECT_NEAR(count[i] / double{n}, std::exp(2 * kLogits[i]) / total, 0.01);
}

TEST(ExactSamplerTest, TheNoiseIsThePlaceInTheCumulativeDistribution) {
  ExactSampler sampler;
  const auto token = [&](double noise) {
    return sampler.Sample(kLogits.data(), 4, {.noise = noise}).token;
  };
  // Probabilities 0.087, 0.237, 0.644, 0.032.
  EXPECT_EQ(token(0), 0);
  EXPECT_EQ(token(0.087), 0);
  EXPECT_EQ(token(0.088), 1);
  EXPECT_EQ(token(0.323), 1);
  EXPECT_EQ(token(0.325), 2);
  EXPECT_EQ(token(0.967), 2);
  EXPECT_EQ(token(std::nextafter(1.0, 0.0)), 3);
}

TEST(ExactSamplerTest, MasksKeepTheLikeliestAndLogProbsIgnoreMasks) {
  ExactSampler sampler;
  const auto seen = [&](float top_p, uint32_t top_k) {
    std::vector<bool> tokens(4);
    for (int i = 0; i < 500; ++i) {
      const SampledToken s =
          sampler.Sample(kLogits.data(), 4,
                         {.top_p = top_p, .top_k = top_k, .noise = i / 500.0});
      tokens[s.token] = true;
      EXPECT_NEAR(s.logprob, kLogits[s.token] - 2.4401897f, 1e-5);
    }
    return tokens;
  };
  EXPECT_EQ(seen(1, 0), (std::vector<bool>{1, 1, 1, 1}));
  EXPECT_EQ(seen(1, 2), (std::vector<bool>{0, 1, 1, 0}));
  EXPECT_EQ(seen(0.5f, 0), (std::vector<bool>{0, 0, 1, 0}));
  EXPECT_EQ(seen(0.9f, 0), (std::vector<bool>{1, 1, 1, 0}));
  // Of the two that top-k leaves, the first alone holds 0.73.
  EXPECT_EQ(seen(0.7f, 2), (std::vector<bool>{0, 0, 1, 0}));
}

TEST(ExactSamplerTest, LogProbsOfSureTokensAreNeverAboveZero) {
  ExactSampler sampler;
  Rng rng(5);
  for (int i = 0; i < 2000; ++i) {
    std::vector<float> logits(50);
    for (float& l : logits) l = static_cast<float>(rng.Uniform() * 40);
    const SampledToken s = sampler.Sample(
        logits.data(), 50, {.temperature = 0.01f, .noise = rng.Uniform()});
    ASSERT_TRUE(std::isfinite(s.logprob));
    ASSERT_LE(s.logprob, 0);
  }
}

TEST(ExactSamplerTest, GreedyTakesTheLowestIdOfEqualLogits) {
  const std::vector<float> logits{0, 2, 2, -1};
  ExactSampler sampler;
  const SampledToken s =
      sampler.Sample(logits.data(), 4, {.temperature = 0, .noise = 0.9});
  EXPECT_EQ(s.token, 1);
  EXPECT_NEAR(s.logprob, 2 - std::log(1 + 2 * std::exp(2.0) + std::exp(-1.0)),
              1e-6);
}

}  // namespace
}  // namespace atod::model
