#include "services/learner/adamw.h"

#include <cmath>

#include "ATen/Parallel.h"
#include "ATen/ops/_fused_adamw.h"
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

}  // namespace

AdamW::AdamW(model::ParameterArena* arena, const AdamWOptions& options)
    : arena_(arena),
      first_(torch::zeros_like(arena->masters)),
      second_(torch::zeros_like(arena->masters)),
      options_(options) {}

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
  for (size_t i = 0; i < arena_->specs().size(); ++i) {
    // Matrices decay, vectors do not.
    const double decay =
        arena_->specs()[i].shape.size() > 1 ? options_.weight_decay : 0.0;
    rates.keep = 1 - lr * decay;
    const int64_t first = arena_->offsets()[i];
    const int64_t count = arena_->offsets()[i + 1] - first;
    const auto part = [&](const torch::Tensor& flat) {
      return flat.narrow(0, first, count);
    };
    const torch::Tensor p = part(arena_->masters), g = part(arena_->gradients),
                        m = part(first_), v = part(second_);
    if (!p.is_cpu()) {
      at::_fused_adamw_(
          {p}, {g}, {m}, {v}, {}, {torch::full({}, updates, p.options())}, lr,
          options_.beta1, options_.beta2, decay, options_.eps, false, false);
      continue;
    }
    at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
      Update(end - begin, rates, g.data_ptr<float>() + begin,
             p.data_ptr<float>() + begin, m.data_ptr<float>() + begin,
             v.data_ptr<float>() + begin);
    });
  }
}

double ClipGradNorm(model::ParameterArena& arena, double max_norm) {
  torch::NoGradGuard no_grad;
  double square = 0;
  if (arena.gradients.is_cpu()) {
    for (size_t i = 0; i < arena.specs().size(); ++i)
      square +=
          SquareSum(arena.offsets()[i + 1] - arena.offsets()[i],
                    arena.gradients.data_ptr<float>() + arena.offsets()[i]);
  } else {
    square = arena.gradients.to(torch::kFloat64).square().sum().item<double>();
  }
  const double norm = std::sqrt(square);
  if (max_norm > 0 && norm > max_norm) arena.gradients.mul_(max_norm / norm);
  return norm;
}

}  // namespace atod::learner
