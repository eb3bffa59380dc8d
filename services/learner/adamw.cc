#include "services/learner/adamw.h"

#include <cmath>
#include <utility>

#include "ATen/Parallel.h"
#include "torch/utils.h"

namespace atod::learner {
namespace {

// The arithmetic of this file is its own, and its file is built without fused
// multiply-adds and for every x86-64 alike (CMakeLists.txt): torch's operations
// take other instructions, in another order, on another CPU.

// Elements that one thread updates at a time.
constexpr int64_t kGrain = 1 << 14;

// Of one update.
struct Rates {
  float step;           // lr / (1 - beta1^n)
  float keep;           // 1 - lr * weight decay
  float first, second;  // 1 - beta1, 1 - beta2
  float unbias;         // sqrt(1 - beta2^n)
  float eps;
};

void Update(int64_t n, const Rates& r, const float* g, float* p, float* m,
            float* v) {
  for (int64_t i = 0; i < n; ++i) {
    m[i] += r.first * (g[i] - m[i]);
    v[i] += r.second * (g[i] * g[i] - v[i]);
    p[i] = p[i] * r.keep - r.step * m[i] / (std::sqrt(v[i]) / r.unbias + r.eps);
  }
}

// In a fixed order, whatever the threads: lane l takes elements l, l + 8, ...
double SquareSum(int64_t n, const float* x) {
  constexpr int64_t kLanes = 8;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l)
      lanes[l] += double{x[i + l]} * double{x[i + l]};
  for (int64_t l = 0; i < n; ++i, ++l) lanes[l] += double{x[i]} * double{x[i]};
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

torch::Tensor Float32(const torch::Tensor& x) {
  TORCH_CHECK(x.is_cpu(), "AdamW: found a gradient on ", x.device(),
              ", expected the CPU");
  return x.to(torch::kFloat32).contiguous();
}

}  // namespace

AdamW::AdamW(std::vector<torch::Tensor> parameters, const AdamWOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  torch::NoGradGuard no_grad;
  for (const torch::Tensor& p : parameters_) {
    masters_.push_back(p.scalar_type() == torch::kFloat32
                           ? p.detach()
                           : p.detach().to(torch::kFloat32));
    first_.push_back(torch::zeros_like(masters_.back()));
    second_.push_back(torch::zeros_like(masters_.back()));
  }
}

void AdamW::Step(double lr) {
  torch::NoGradGuard no_grad;
  ++updates_;
  const double updates = static_cast<double>(updates_);
  Rates rates;
  rates.step = lr / (1 - std::pow(options_.beta1, updates));
  rates.first = 1 - options_.beta1;
  rates.second = 1 - options_.beta2;
  rates.unbias = std::sqrt(1 - std::pow(options_.beta2, updates));
  rates.eps = options_.eps;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_[i].grad().defined()) continue;
    // Matrices decay, vectors do not.
    rates.keep =
        parameters_[i].dim() > 1 ? 1 - lr * options_.weight_decay : 1.0;
    const torch::Tensor g = Float32(parameters_[i].grad());
    at::parallel_for(0, g.numel(), kGrain, [&](int64_t begin, int64_t end) {
      Update(end - begin, rates, g.data_ptr<float>() + begin,
             masters_[i].data_ptr<float>() + begin,
             first_[i].data_ptr<float>() + begin,
             second_[i].data_ptr<float>() + begin);
    });
  }
  CopyMasters();
}

void AdamW::RestoreUpdates(int64_t updates) {
  updates_ = updates;
  CopyMasters();
}

void AdamW::CopyMasters() {
  torch::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (parameters_[i].scalar_type() != torch::kFloat32)
      parameters_[i].copy_(masters_[i]);
}

double ClipGradNorm(const std::vector<torch::Tensor>& parameters,
                    double max_norm) {
  torch::NoGradGuard no_grad;
  double square = 0;
  for (const torch::Tensor& p : parameters) {
    if (!p.grad().defined()) continue;
    const torch::Tensor g = Float32(p.grad());
    square += SquareSum(g.numel(), g.data_ptr<float>());
  }
  const double norm = std::sqrt(square);
  if (max_norm > 0 && norm > max_norm)
    for (const torch::Tensor& p : parameters)
      if (p.grad().defined()) p.grad().mul_(max_norm / norm);
  return norm;
}

}  // namespace atod::learner
