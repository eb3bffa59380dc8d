#include "services/learner/adamw.h"

#include <cmath>
#include <vector>

#include "ATen/Parallel.h"
#include "gtest/gtest.h"
#include "torch/utils.h"

namespace atod::learner {
namespace {

// The smallest model there is: its matrices and vectors are what AdamW sees.
model::ModelConfig Tiny() {
  model::ModelConfig c;
  c.vocab_size = 2;
  c.hidden_size = 2;
  c.intermediate_size = 2;
  c.num_hidden_layers = 1;
  c.num_attention_heads = c.num_key_value_heads = 1;
  c.head_dim = 2;
  c.tie_word_embeddings = true;
  return c;
}

model::ParameterArena Arena(torch::Dtype dtype = torch::kFloat32) {
  model::ParameterArena arena(Tiny(), dtype, torch::kCPU, true);
  for (int64_t i = 0; i < arena.num_parameters(); ++i)
    arena.masters[i] = 0.5 + 0.01 * static_cast<double>(i);
  return arena;
}

void SetGradients(model::ParameterArena& arena, double scale) {
  for (int64_t i = 0; i < arena.num_parameters(); ++i)
    arena.gradients[i] = scale * std::sin(static_cast<double>(i) + 1);
}

TEST(AdamW, FollowsThePublishedUpdateAndVectorsDoNotDecay) {
  model::ParameterArena arena = Arena();
  const AdamWOptions o{0.9, 0.95, 1e-8, 0.1};
  AdamW optimizer(&arena, o);
  const int64_t n = arena.num_parameters();
  std::vector<double> x(n), m(n), v(n), decay(n);
  for (size_t p = 0; p < arena.specs().size(); ++p)
    for (int64_t i = arena.offsets()[p]; i < arena.offsets()[p + 1]; ++i)
      decay[i] = arena.specs()[p].shape.size() > 1 ? o.weight_decay : 0;
  for (int64_t i = 0; i < n; ++i) x[i] = arena.masters[i].item<double>();
  for (int step = 1; step <= 5; ++step) {
    SetGradients(arena, 0.3 * step);
    optimizer.Step(0.01);
    for (int64_t i = 0; i < n; ++i) {
      const double g = 0.3 * step * std::sin(static_cast<double>(i) + 1);
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * g;
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * g * g;
      x[i] -= 0.01 * decay[i] * x[i];
      x[i] -= 0.01 * (m[i] / (1 - std::pow(o.beta1, step))) /
              (std::sqrt(v[i] / (1 - std::pow(o.beta2, step))) + o.eps);
      ASSERT_NEAR(arena.masters[i].item<double>(), x[i], 1e-5) << step;
    }
  }
  EXPECT_EQ(optimizer.updates(), 5);
  // The padding stays what it is.
  for (int64_t i = n; i < arena.masters.numel(); ++i)
    EXPECT_EQ(arena.masters[i].item<float>(), 0);
}

TEST(AdamW, TheNormDoesNotDependOnThreads) {
  model::ModelConfig config = Tiny();
  config.vocab_size = 40000;
  model::ParameterArena arena(config, torch::kFloat32, torch::kCPU, true);
  double square = 0;
  for (int64_t i = 0; i < arena.num_parameters(); ++i) {
    float& g = arena.gradients.data_ptr<float>()[i];
    g = std::sin(static_cast<float>(i)) * 1e-3f;
    square += std::pow(double{g}, 2);
  }
  const double one = ClipGradNorm(arena, 0);
  EXPECT_NEAR(one, std::sqrt(square), 1e-6);
  for (const int threads : {2, 3}) {
    at::set_num_threads(threads);
    EXPECT_EQ(ClipGradNorm(arena, 0), one) << threads;
  }
  at::set_num_threads(1);
}

TEST(AdamW, Bfloat16ParametersMoveBySmallUpdatesOfTheirMaster) {
  model::ParameterArena arena = Arena(torch::kBFloat16);
  arena.masters.fill_(1);
  AdamW optimizer(&arena, {});
  // Each update is a tenth of what bfloat16 resolves at 1.
  for (int i = 0; i < 40; ++i) {
    arena.gradients.fill_(1);
    optimizer.Step(0.0004);
  }
  EXPECT_NEAR(arena.masters[0].item<float>(), 1 - 40 * 0.0004, 1e-5);
}

TEST(AdamW, RestoredStateContinuesTheSameRun) {
  model::ParameterArena a = Arena(), b = Arena();
  AdamW first(&a, {}), second(&b, {});
  const auto step = [](AdamW& o, model::ParameterArena& p, double g) {
    SetGradients(p, g);
    o.Step(0.1);
  };
  step(first, a, 1);
  step(first, a, -3);
  b.masters.copy_(a.masters);
  second.first_moments().copy_(first.first_moments());
  second.second_moments().copy_(first.second_moments());
  second.set_updates(first.updates());
  step(first, a, 2);
  step(second, b, 2);
  EXPECT_TRUE(torch::equal(a.masters, b.masters));
}

TEST(ClipGradNorm, ScalesToTheLimitAndReturnsTheNormBefore) {
  model::ParameterArena arena = Arena();
  arena.gradients[0] = 3;
  arena.gradients[5] = 4;
  EXPECT_NEAR(ClipGradNorm(arena, 0), 5, 1e-6);
  EXPECT_NEAR(ClipGradNorm(arena, 2.5), 5, 1e-6);
  EXPECT_NEAR(arena.gradients[0].item<float>(), 1.5, 1e-5);
  EXPECT_NEAR(ClipGradNorm(arena, 100), 2.5, 1e-5);
}

}  // namespace
}  // namespace atod::learner
