#include "services/learner/adamw.h"

#include <cmath>
#include <vector>

#include "ATen/Parallel.h"
#include "gtest/gtest.h"
#include "torch/types.h"

namespace atod::learner {
namespace {

torch::Tensor Parameter(const std::vector<double>& values,
                        torch::Dtype dtype = torch::kFloat32) {
  return torch::tensor(values, torch::kFloat64)
      .view({1, -1})
      .to(dtype)
      .requires_grad_();
}

TEST(AdamW, FollowsThePublishedUpdate) {
  torch::Tensor p = Parameter({0.5, -2});
  const AdamWOptions o{0.9, 0.95, 1e-8, 0.1};
  AdamW optimizer({p}, o);
  double x[2] = {0.5, -2}, m[2] = {}, v[2] = {};
  for (int step = 1; step <= 5; ++step) {
    const double g[2] = {0.3 * step, -1.0 / step};
    p.mutable_grad() = Parameter({g[0], g[1]}).detach();
    optimizer.Step(0.01);
    for (int i = 0; i < 2; ++i) {
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * g[i];
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * g[i] * g[i];
      x[i] -= 0.01 * o.weight_decay * x[i];
      x[i] -= 0.01 * (m[i] / (1 - std::pow(o.beta1, step))) /
              (std::sqrt(v[i] / (1 - std::pow(o.beta2, step))) + o.eps);
      EXPECT_NEAR(p[0][i].item<double>(), x[i], 1e-5) << step;
    }
  }
  EXPECT_EQ(optimizer.updates(), 5);
}

TEST(AdamW, TheNormDoesNotDependOnThreads) {
  torch::Tensor p = torch::empty({400, 301}).requires_grad_();
  torch::Tensor g = torch::empty({400, 301});
  double square = 0;
  for (int64_t i = 0; i < g.numel(); ++i) {
    g.data_ptr<float>()[i] = std::sin(static_cast<float>(i)) * 1e-3f;
    square += std::pow(double{g.data_ptr<float>()[i]}, 2);
  }
  p.mutable_grad() = g;
  const double one = ClipGradNorm({p}, 0);
  EXPECT_NEAR(one, std::sqrt(square), 1e-6);
  for (const int threads : {2, 3}) {
    at::set_num_threads(threads);
    EXPECT_EQ(ClipGradNorm({p}, 0), one) << threads;
  }
  at::set_num_threads(1);
}

TEST(AdamW, VectorsDoNotDecayAndMissingGradientsChangeNothing) {
  torch::Tensor norm = torch::ones({2}).requires_grad_();
  torch::Tensor idle = Parameter({1});
  AdamW optimizer({norm, idle}, {0.9, 0.95, 1e-8, 0.5});
  norm.mutable_grad() = torch::zeros({2});
  optimizer.Step(0.1);
  EXPECT_EQ(norm[0].item<float>(), 1);
  EXPECT_EQ(idle[0][0].item<float>(), 1);
}

TEST(AdamW, Bfloat16ParametersMoveBySmallUpdatesOfTheirMaster) {
  torch::Tensor p = Parameter({1}, torch::kBFloat16);
  AdamW optimizer({p}, {});
  // Each update is a tenth of what bfloat16 resolves at 1.
  for (int i = 0; i < 40; ++i) {
    p.mutable_grad() = torch::ones({1, 1}, torch::kBFloat16);
    optimizer.Step(0.0004);
  }
  EXPECT_NEAR(p.item<float>(), 1 - 40 * 0.0004, 0.004);
}

TEST(AdamW, RestoredStateContinuesTheSameRun) {
  torch::Tensor a = Parameter({1, 2}), b = Parameter({7, 7});
  AdamW first({a}, {}), second({b}, {});
  const auto step = [](AdamW& o, torch::Tensor& p, double g) {
    p.mutable_grad() = Parameter({g, -g}).detach();
    o.Step(0.1);
  };
  step(first, a, 1);
  step(first, a, -3);
  {
    torch::NoGradGuard no_grad;
    second.masters()[0].copy_(first.masters()[0]);
    second.first_moments()[0].copy_(first.first_moments()[0]);
    second.second_moments()[0].copy_(first.second_moments()[0]);
    second.RestoreUpdates(first.updates());
  }
  step(first, a, 2);
  step(second, b, 2);
  EXPECT_TRUE(torch::equal(a, b));
}

TEST(ClipGradNorm, ScalesToTheLimitAndReturnsTheNormBefore) {
  torch::Tensor a = Parameter({0}), b = Parameter({0});
  a.mutable_grad() = Parameter({3}).detach();
  b.mutable_grad() = Parameter({4}).detach();
  EXPECT_NEAR(ClipGradNorm({a, b}, 0), 5, 1e-6);
  EXPECT_NEAR(ClipGradNorm({a, b}, 2.5), 5, 1e-6);
  EXPECT_NEAR(a.grad().item<float>(), 1.5, 1e-5);
  EXPECT_NEAR(ClipGradNorm({a, b}, 100), 2.5, 1e-5);
}

}  // namespace
}  // namespace atod::learner
