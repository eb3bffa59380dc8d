#include "common/model/torch/head.h"

#include <algorithm>

#include "torch/csrc/autograd/custom_function.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

// Rows of a bfloat16 head that are converted at a time on the CPU.
constexpr int64_t kConvertedRows = 16384;

struct Wanted {
  double temperature = 1;
  bool entropy = false;
  int64_t top_k = 0;
};

// The part of the rows [begin, begin + n) of `out`; their log-sum-exp to `lse`.
void HeadChunk(const torch::Tensor& hidden, const TorchMatrix& head,
               const torch::Tensor& targets, const Wanted& wanted,
               int64_t begin, int64_t n, HeadOutput& out,
               const torch::Tensor& lse) {
  torch::Tensor logits =
      HeadLogits(hidden.narrow(0, begin, n), head).div_(wanted.temperature);
  const torch::Tensor sum = logits.logsumexp(1);
  lse.narrow(0, begin, n).copy_(sum);
  out.logprobs.narrow(0, begin, n)
      .copy_((logits.gather(1, targets.narrow(0, begin, n).unsqueeze(1))
                  .squeeze(1) -
              sum)
                 .clamp_max(0));  // rounding may put a sure token above 0
  if (wanted.top_k > 0) {
    const auto [values, ids] = torch::topk(logits, wanted.top_k, 1);
    out.top_ids.narrow(0, begin, n).copy_(ids);
    out.top_logprobs.narrow(0, begin, n)
        .copy_((values - sum.unsqueeze(1)).clamp_max(0));
  }
  if (wanted.entropy) {
    logits.sub_(sum.unsqueeze(1));
    out.entropy.narrow(0, begin, n).copy_(-(logits.exp().mul_(logits)).sum(1));
  }
}

HeadOutput Forward(const torch::Tensor& hidden, const TorchMatrix& head,
                   const torch::Tensor& targets, const Wanted& wanted,
                   torch::Tensor* lse) {
  const int64_t rows = hidden.size(0);
  const auto options = hidden.options().dtype(torch::kFloat32);
  HeadOutput out;
  out.logprobs = torch::empty({rows}, options);
  if (wanted.entropy) out.entropy = torch::empty({rows}, options);
  if (wanted.top_k > 0) {
    out.top_ids =
        torch::empty({rows, wanted.top_k}, options.dtype(torch::kInt64));
    out.top_logprobs = torch::empty({rows, wanted.top_k}, options);
  }
  *lse = torch::empty({rows}, options);
  for (int64_t i = 0; i < rows; i += kHeadRows)
    HeadChunk(hidden, head, targets, wanted, i, std::min(kHeadRows, rows - i),
              out, *lse);
  return out;
}

class HeadFunction : public torch::autograd::Function<HeadFunction> {
 public:
  // Log-probs, and entropies when they are wanted.
  static torch::autograd::variable_list forward(
      torch::autograd::AutogradContext* ctx, const torch::Tensor& hidden,
      const torch::Tensor& weight, const torch::Tensor& gradient,
      const torch::Tensor& targets, double temperature, bool want_entropy) {
    torch::Tensor lse;
    const HeadOutput out = Forward(hidden, {weight, {}, nullptr}, targets,
                                   {temperature, want_entropy, 0}, &lse);
    ctx->save_for_backward({hidden, weight, targets, lse, out.entropy});
    ctx->saved_data["gradient"] = gradient;
    ctx->saved_data["temperature"] = temperature;
    ctx->set_materialize_grads(false);
    if (!want_entropy) return {out.logprobs};
    return {out.logprobs, out.entropy};
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* ctx,
      torch::autograd::variable_list d_outputs) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor &hidden = saved[0], &weight = saved[1],
                        &targets = saved[2], &lse = saved[3];
    const torch::Tensor gradient = ctx->saved_data["gradient"].toTensor();
    const double temperature = ctx->saved_data["temperature"].toDouble();
    const torch::Tensor g =
        (d_outputs[0].defined() ? d_outputs[0] : torch::zeros_like(lse))
            .unsqueeze(1) /
        temperature;
    const bool by_entropy = d_outputs.size() > 1 && d_outputs[1].defined();
    const torch::Tensor d_hidden = torch::empty_like(hidden);
    for (int64_t i = 0; i < hidden.size(0); i += kHeadRows) {
      const int64_t n = std::min(kHeadRows, hidden.size(0) - i);
      const torch::Tensor rows = hidden.narrow(0, i, n);
      // d log p(target) / d logits = (onehot - p) / temperature.
      torch::Tensor d =
          HeadLogits(rows, {weight, {}, nullptr}).div_(temperature);
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
      const torch::Tensor typed = d.to(weight.scalar_type());
      d_hidden.narrow(0, i, n).copy_(torch::mm(typed, weight));
      AddProduct(typed.t(), rows, gradient);
    }
    return {d_hidden, {}, {}, {}, {}, {}};
  }
};

}  // namespace

torch::Tensor HeadLogits(const torch::Tensor& hidden, const TorchMatrix& head) {
  if (hidden.scalar_type() == torch::kFloat32)
    return torch::mm(hidden, head.weight.t());
  if (hidden.is_cuda()) return at::mm(hidden, head.weight.t(), torch::kFloat32);
  if (head.packed != nullptr) return head.packed->ApplyFloat(hidden);
  const torch::Tensor exact = hidden.to(torch::kFloat32);
  const int64_t vocab = head.weight.size(0);
  const torch::Tensor out =
      torch::empty({hidden.size(0), vocab}, exact.options());
  for (int64_t i = 0; i < vocab; i += kConvertedRows) {
    const int64_t n = std::min(kConvertedRows, vocab - i);
    out.narrow(1, i, n).copy_(
        torch::mm(exact, head.weight.narrow(0, i, n).to(torch::kFloat32).t()));
  }
  return out;
}

HeadOutput RunHead(const torch::Tensor& hidden, const TorchMatrix& head,
                   const torch::Tensor& targets, double temperature,
                   bool want_entropy, int64_t top_k) {
  if (!torch::GradMode::is_enabled()) {
    torch::Tensor lse;
    return Forward(hidden, head, targets, {temperature, want_entropy, top_k},
                   &lse);
  }
  const torch::autograd::variable_list out = HeadFunction::apply(
      hidden, head.weight, head.gradient, targets, temperature, want_entropy);
  HeadOutput result;
  result.logprobs = out[0];
  if (want_entropy) result.entropy = out[1];
  return result;
}

}  // namespace atod::model
