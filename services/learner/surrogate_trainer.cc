#include "services/learner/surrogate_trainer.h"

#include <algorithm>
#include <numeric>

#include "ATen/ATen.h"

namespace atod::learner {
namespace {

// In one fixed order: torch splits sums of many tokens over the threads.
double Total(const at::Tensor& x) {
  const at::Tensor d = x.detach().to(at::kCPU, at::kDouble).contiguous();
  return std::accumulate(d.data_ptr<double>(), d.data_ptr<double>() + d.numel(),
                         0.0);
}

// Each token's mean of x over the tokens of its turn.
at::Tensor TurnMean(const at::Tensor& x, const at::Tensor& turn) {
  const int64_t turns = turn.numel() > 0 ? turn.max().item<int64_t>() + 1 : 0;
  const at::Tensor zero = at::zeros({turns}, x.options());
  const at::Tensor sum = zero.index_add(0, turn, x);
  const at::Tensor count = zero.index_add(0, turn, at::ones_like(x));
  return (sum / count).index_select(0, turn);
}

at::Tensor KlTerms(const at::Tensor& current, const at::Tensor& reference,
                   KlEstimator estimator) {
  const at::Tensor x = current - reference.detach();
  switch (estimator) {
    case KlEstimator::kK1:
      return x;
    case KlEstimator::kK2:
      return x * x / 2;
    case KlEstimator::kK3:
      break;
  }
  return (-x).exp() - 1 + x;
}

}  // namespace

void SurrogateStats::Add(const SurrogateStats& other) {
  tokens += other.tokens;
  loss += other.loss;
  clipped += other.clipped;
  dual_clipped += other.dual_clipped;
  kl += other.kl;
  ratio += other.ratio;
  ratio_max = std::max(ratio_max, other.ratio_max);
  entropy += other.entropy;
  reference_kl += other.reference_kl;
  sdar += other.sdar;
}

void SurrogateStats::PutMetrics(double updates, const AuxOptions& aux,
                                std::map<std::string, double>& metrics) const {
  if (tokens == 0) return;
  metrics["actor/pg_loss"] = loss / updates;
  metrics["actor/pg_clipfrac"] = clipped / tokens;
  metrics["actor/ppo_kl"] = kl / tokens;
  metrics["actor/ratio_mean"] = ratio / tokens;
  metrics["actor/ratio_max"] = ratio_max;
  if (dual_clipped > 0)
    metrics["actor/pg_clipfrac_lower"] = dual_clipped / tokens;
  if (aux.entropy_coef > 0) metrics["actor/entropy_loss"] = entropy / updates;
  if (aux.kl_coef > 0) metrics["actor/kl_loss"] = reference_kl / updates;
  if (aux.sdar_lambda > 0) metrics["actor/sdar_loss"] = sdar / updates;
}

at::Tensor SurrogateLoss(const at::Tensor& current, const at::Tensor& old,
                         const at::Tensor& advantage, const at::Tensor& weight,
                         const at::Tensor& turn,
                         const SurrogateOptions& options,
                         SurrogateStats* stats) {
  const at::Tensor old_constant = old.detach();
  const at::Tensor advantage_constant = advantage.detach();
  const at::Tensor weight_constant = weight.detach();

  at::Tensor log_ratio = current - old_constant;
  if (options.turn_ratio) log_ratio = TurnMean(log_ratio, turn);
  const at::Tensor ratio = log_ratio.exp();
  const at::Tensor plain = ratio * advantage_constant;
  const at::Tensor clipped =
      ratio.clamp(1 - options.clip_low, 1 + options.clip_high) *
      advantage_constant;
  const at::Tensor took_clip = (clipped < plain).detach();
  // Not minimum(): it would halve the gradient where both sides are equal,
  // i.e. at every token of the first update.
  at::Tensor token_loss = -at::where(took_clip, clipped, plain);
  at::Tensor took_dual;
  if (options.dual_clip > 0) {
    took_dual =
        ((advantage_constant < 0) & (ratio > options.dual_clip)).detach();
    token_loss = at::where(took_dual, -options.dual_clip * advantage_constant,
                           token_loss);
  }
  const at::Tensor loss = (token_loss * weight_constant).sum();

  SurrogateStats seen;
  seen.tokens = static_cast<double>(current.numel());
  if (current.numel() > 0) {
    seen.loss = Total(token_loss * weight_constant);
    seen.clipped = Total(took_clip);
    if (took_dual.defined()) {
      seen.dual_clipped = Total(took_dual);
      seen.clipped += seen.dual_clipped;
    }
    seen.kl = Total(ratio - 1 - log_ratio);
    seen.ratio = Total(ratio);
    seen.ratio_max = ratio.detach().max().item<double>();
  }
  stats->Add(seen);
  return loss;
}

at::Tensor AuxLoss(const at::Tensor& current, const at::Tensor& entropy,
                   const at::Tensor& reference, const at::Tensor& context,
                   const at::Tensor& weight, const AuxOptions& options,
                   SurrogateStats* stats) {
  const at::Tensor weight_constant = weight.detach();
  at::Tensor loss = at::zeros({}, current.options());
  const auto add = [&](double coefficient, const at::Tensor& terms) {
    const at::Tensor weighted = terms * weight_constant;
    loss = loss + coefficient * weighted.sum();
    return Total(weighted);
  };
  if (options.entropy_coef > 0)
    stats->entropy += add(-options.entropy_coef, entropy);
  if (options.kl_coef > 0) {
    stats->reference_kl +=
        add(options.kl_coef, KlTerms(current, reference, options.kl_estimator));
  }
  if (options.sdar_lambda > 0) {
    const at::Tensor gap = context.detach() - current;
    const at::Tensor gate = (options.sdar_beta * gap).sigmoid().detach();
    stats->sdar += add(options.sdar_lambda, gate * gap);
  }
  return loss;
}

}  // namespace atod::learner
