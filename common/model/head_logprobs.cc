#include "common/model/head_logprobs.h"

#include <algorithm>

#include "torch/csrc/autograd/custom_function.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

// Float32 logits / temperature of rows [begin, begin + count).
torch::Tensor ScaledLogits(const torch::Tensor& hidden,
                           const torch::Tensor& head, int64_t begin,
                           int64_t count, double temperature) {
  return torch::mm(hidden.narrow(0, begin, count), head.t())
      .to(torch::kFloat32)
      .div_(temperature);
}

class HeadFunction : public torch::autograd::Function<HeadFunction> {
 public:
  // Log-probs, and entropies when they are wanted.
  static torch::autograd::variable_list forward(
      torch::autograd::AutogradContext* ctx, const torch::Tensor& hidden,
      const torch::Tensor& head, const torch::Tensor& targets,
      double temperature, bool want_entropy) {
    const int64_t rows = hidden.size(0);
    const auto options = hidden.options().dtype(torch::kFloat32);
    const torch::Tensor logprobs = torch::empty({rows}, options);
    const torch::Tensor lse = torch::empty({rows}, options);
    torch::Tensor entropy;
    if (want_entropy) entropy = torch::empty({rows}, options);
    for (int64_t i = 0; i < rows; i += kHeadRows) {
      const int64_t n = std::min(kHeadRows, rows - i);
      torch::Tensor logits = ScaledLogits(hidden, head, i, n, temperature);
      const torch::Tensor sum = logits.logsumexp(1);
      lse.narrow(0, i, n).copy_(sum);
      logprobs.narrow(0, i, n).copy_(
          (logits.gather(1, targets.narrow(0, i, n).unsqueeze(1)).squeeze(1) -
           sum)
              .clamp_max(0));  // rounding may put a sure token above 0
      if (want_entropy) {
        logits.sub_(sum.unsqueeze(1));
        entropy.narrow(0, i, n).copy_(-(logits.exp().mul_(logits)).sum(1));
      }
    }
    ctx->save_for_backward({hidden, head, targets, lse, entropy});
    ctx->saved_data["temperature"] = temperature;
    ctx->set_materialize_grads(false);
    if (!want_entropy) return {logprobs};
    return {logprobs, entropy};
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* ctx,
      torch::autograd::variable_list d_outputs) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor &hidden = saved[0], &head = saved[1],
                        &targets = saved[2], &lse = saved[3];
    const double temperature = ctx->saved_data["temperature"].toDouble();
    const torch::Tensor g =
        (d_outputs[0].defined() ? d_outputs[0] : torch::zeros_like(lse))
            .unsqueeze(1) /
        temperature;
    const bool by_entropy = d_outputs.size() > 1 && d_outputs[1].defined();
    const torch::Tensor d_hidden = torch::empty_like(hidden);
    const torch::Tensor d_head =
        torch::zeros_like(head, head.options().dtype(torch::kFloat32));
    for (int64_t i = 0; i < hidden.size(0); i += kHeadRows) {
      const int64_t n = std::min(kHeadRows, hidden.size(0) - i);
      // d log p(target) / d logits = (onehot - p) / temperature.
      torch::Tensor d = ScaledLogits(hidden, head, i, n, temperature);
      d.sub_(lse.narrow(0, i, n).unsqueeze(1));
      torch::Tensor of_entropy;
      if (by_entropy) {
        // d entropy / d logits = -p (log p + entropy) / temperature.
        of_entropy = (d + saved[4].narrow(0, i, n).unsqueeze(1)) * d.exp() *
                     (d_outputs[1].narrow(0, i, n).unsqueeze(1) / -temperature);
      }
      d.exp_().mul_(-g.narrow(0, i, n));
      if (by_entropy) d.add_(of_entropy);
      d.scatter_add_(1, targets.narrow(0, i, n).unsqueeze(1),
                     g.narrow(0, i, n));
      const torch::Tensor typed = d.to(head.scalar_type());
      d_hidden.narrow(0, i, n).copy_(torch::mm(typed, head));
      d_head.add_(torch::mm(typed.t(), hidden.narrow(0, i, n)));
    }
    return {d_hidden, d_head.to(head.scalar_type()), {}, {}, {}};
  }
};

}  // namespace

torch::Tensor HeadLogProbs(const torch::Tensor& hidden,
                           const torch::Tensor& head,
                           const torch::Tensor& targets, double temperature,
                           torch::Tensor* entropy) {
  const torch::autograd::variable_list out = HeadFunction::apply(
      hidden, head, targets, temperature, entropy != nullptr);
  if (entropy != nullptr) *entropy = out[1];
  return out[0];
}

}  // namespace atod::model
