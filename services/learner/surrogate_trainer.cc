#include "services/learner/surrogate_trainer.h"

#include <algorithm>
#include <numeric>

#include "ATen/ATen.h"

namespace atod::learner {

void SurrogateStats::Add(const SurrogateStats& other) {
  tokens += other.tokens;
  loss += other.loss;
  clipped += other.clipped;
  kl += other.kl;
  ratio += other.ratio;
  ratio_max = std::max(ratio_max, other.ratio_max);
}

void SurrogateStats::PutMetrics(std::map<std::string, double>& metrics) const {
  if (tokens == 0) return;
  metrics["actor/pg_loss"] = loss;
  metrics["actor/pg_clipfrac"] = clipped / tokens;
  metrics["actor/ppo_kl"] = kl / tokens;
  metrics["actor/ratio_mean"] = ratio / tokens;
  metrics["actor/ratio_max"] = ratio_max;
}

at::Tensor SurrogateLoss(const at::Tensor& current, const at::Tensor& old,
                         const at::Tensor& advantage, const at::Tensor& weight,
                         double clip_low, double clip_high,
                         SurrogateStats* stats) {
  const at::Tensor old_constant = old.detach();
  const at::Tensor advantage_constant = advantage.detach();
  const at::Tensor weight_constant = weight.detach();

  const at::Tensor log_ratio = current - old_constant;
  const at::Tensor ratio = log_ratio.exp();
  const at::Tensor plain = ratio * advantage_constant;
  const at::Tensor clipped =
      ratio.clamp(1 - clip_low, 1 + clip_high) * advantage_constant;
  const at::Tensor took_clip = (clipped < plain).detach();
  // Not minimum(): it would halve the gradient where both sides are equal,
  // i.e. at every token of the first update.
  const at::Tensor token_loss = -at::where(took_clip, clipped, plain);
  const at::Tensor loss = (token_loss * weight_constant).sum();

  *stats = SurrogateStats();
  stats->tokens = static_cast<double>(current.numel());
  if (current.numel() > 0) {
    // One fixed order: torch splits sums of many tokens over the threads.
    const auto total = [](const at::Tensor& x) {
      const at::Tensor d = x.detach().to(at::kCPU, at::kDouble).contiguous();
      return std::accumulate(d.data_ptr<double>(),
                             d.data_ptr<double>() + d.numel(), 0.0);
    };
    stats->loss = total(token_loss * weight_constant);
    stats->clipped = total(took_clip);
    stats->kl = total(ratio - 1 - log_ratio);
    stats->ratio = total(ratio);
    stats->ratio_max = ratio.detach().max().item<double>();
  }
  return loss;
}

}  // namespace atod::learner
