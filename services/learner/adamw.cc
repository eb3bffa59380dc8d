#include "services/learner/adamw.h"

#include <cmath>
#include <utility>

#include "ATen/ops/_fused_adamw.h"
#include "ATen/ops/linalg_vector_norm.h"
#include "torch/utils.h"

namespace atod::learner {

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
  // Matrices decay, vectors do not.
  for (const bool decays : {true, false}) {
    std::vector<torch::Tensor> p, g, m, v, none, steps;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const torch::Tensor& grad = parameters_[i].grad();
      if ((parameters_[i].dim() > 1) != decays || !grad.defined()) continue;
      p.push_back(masters_[i]);
      g.push_back(grad.to(torch::kFloat32));
      m.push_back(first_[i]);
      v.push_back(second_[i]);
      steps.push_back(torch::full({}, static_cast<double>(updates_),
                                  masters_[i].options()));
    }
    if (p.empty()) continue;
    at::_fused_adamw_(p, g, m, v, none, steps, lr, options_.beta1,
                      options_.beta2, decays ? options_.weight_decay : 0.0,
                      options_.eps, /*amsgrad=*/false, /*maximize=*/false);
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
    // One thread goes through a whole tensor, in order.
    const double n =
        at::linalg_vector_norm(p.grad(), 2, {}, false, torch::kFloat32)
            .item<double>();
    square += n * n;
  }
  const double norm = std::sqrt(square);
  if (max_norm > 0 && norm > max_norm)
    for (const torch::Tensor& p : parameters)
      if (p.grad().defined()) p.grad().mul_(max_norm / norm);
  return norm;
}

}  // namespace atod::learner
