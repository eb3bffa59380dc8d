#include "services/learner/algorithm/update_loss.h"

#include <algorithm>
#include <cmath>

namespace atod::learner {
namespace {

// Calls f(turn, begin, end) for the places that each turn's rows have in
// `rows`.
template <typename F>
void ForEachTurn(const StepBatch& batch, absl::Span<const int32_t> rows, F f) {
  const std::vector<int32_t>& offsets = batch.token_begin;
  for (size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    const auto last =
        std::upper_bound(offsets.begin(), offsets.end(), rows[begin]);
    while (end < rows.size() && rows[end] >= *(last - 1) && rows[end] < *last)
      ++end;
    f(static_cast<int32_t>(last - offsets.begin() - 1), begin, end);
  }
}

double Mean(const std::vector<double>& x, size_t begin, size_t end) {
  double sum = 0;
  for (size_t i = begin; i < end; ++i) sum += x[i];
  return sum / static_cast<double>(end - begin);
}

}  // namespace

void LossStats::Add(const LossStats& other) {
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

void LossStats::PutMetrics(double updates, const AuxOptions& aux,
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

std::vector<TokenTerms> LossTerms(const StepBatch& batch,
                                  const Advantages& advantages,
                                  const Recipe& recipe,
                                  const ScoredRows& scored) {
  std::vector<double> log_ratio;
  for (size_t i = 0; i < scored.rows.size(); ++i)
    log_ratio.push_back(scored.logprob[i] - batch.old_logprob[scored.rows[i]]);
  std::vector<TokenTerms> out(scored.rows.size());
  ForEachTurn(batch, scored.rows, [&](int32_t k, size_t begin, size_t end) {
    const double mean =
        recipe.surrogate.turn_ratio ? Mean(log_ratio, begin, end) : 0;
    for (size_t i = begin; i < end; ++i) {
      const int32_t t = scored.rows[i];
      const double now = scored.logprob[i];
      TokenTerms& x = out[i];
      x.log_ratio = recipe.surrogate.turn_ratio ? mean : log_ratio[i];
      x.ratio = std::exp(x.log_ratio);
      x.surrogate = ClippedSurrogate(
          x.ratio, AdvantageAt(batch, advantages, recipe.signal, k, t, now),
          recipe.surrogate);
      if (recipe.aux.kl_coef > 0)
        x.kl = KlTerm(now, batch.reference_logprob[t], recipe.aux.kl_estimator);
      if (recipe.aux.sdar_lambda > 0)
        x.sdar = SdarTerm(now, batch.context_logprob[t], recipe.aux.sdar_beta);
    }
  });
  return out;
}

LossGradient UpdateLoss(const StepBatch& batch, const Advantages& advantages,
                        const Recipe& recipe, absl::Span<const double> weight,
                        const ScoredRows& scored, LossStats* stats) {
  const AuxOptions& aux = recipe.aux;
  const double cap = recipe.surrogate.importance_cap;
  const std::vector<TokenTerms> terms =
      LossTerms(batch, advantages, recipe, scored);
  LossGradient out;
  std::vector<double> by_ratio;  // the surrogate's
  for (size_t i = 0; i < terms.size(); ++i) {
    const int32_t t = scored.rows[i];
    const TokenTerms& x = terms[i];
    const double importance =
        cap == 0 ? 1
                 : ImportanceWeight(batch.old_logprob[t],
                                    batch.rollout_logprob[t], cap);
    const double surrogate = weight[t] * importance * x.surrogate.loss;
    by_ratio.push_back(weight[t] * importance * x.surrogate.gradient);
    out.loss += surrogate + weight[t] * (aux.kl_coef * x.kl.loss +
                                         aux.sdar_lambda * x.sdar.loss);
    out.logprob.push_back(weight[t] * (aux.kl_coef * x.kl.gradient +
                                       aux.sdar_lambda * x.sdar.gradient));
    stats->tokens += 1;
    stats->loss += surrogate;
    stats->clipped += x.surrogate.clipped;
    stats->dual_clipped += x.surrogate.dual_clipped;
    stats->kl += x.ratio - 1 - x.log_ratio;
    stats->ratio += x.ratio;
    stats->ratio_max = std::max(stats->ratio_max, x.ratio);
    stats->reference_kl += weight[t] * x.kl.loss;
    stats->sdar += weight[t] * x.sdar.loss;
    if (aux.entropy_coef > 0) {
      out.loss -= aux.entropy_coef * weight[t] * scored.entropy[i];
      out.entropy.push_back(-aux.entropy_coef * weight[t]);
      stats->entropy += weight[t] * scored.entropy[i];
    }
  }
  ForEachTurn(batch, scored.rows, [&](int32_t, size_t begin, size_t end) {
    const double mean =
        recipe.surrogate.turn_ratio ? Mean(by_ratio, begin, end) : 0;
    for (size_t i = begin; i < end; ++i)
      out.logprob[i] += recipe.surrogate.turn_ratio ? mean : by_ratio[i];
  });
  return out;
}

}  // namespace atod::learner
