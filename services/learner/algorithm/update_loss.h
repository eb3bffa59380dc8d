#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "services/learner/algorithm/advantages.h"
#include "services/learner/algorithm/recipe.h"
#include "services/learner/algorithm/step_batch.h"
#include "services/learner/algorithm/token_loss.h"

namespace atod::learner {

// What the losses saw, as sums, so that micro-batches and ranks add up.
struct LossStats {
  double tokens = 0;
  double loss = 0;          // sum of weight * surrogate
  double clipped = 0;       // tokens whose gradient a clip took
  double dual_clipped = 0;  // of these, by the dual clip
  double kl = 0;            // sum of ratio - 1 - log ratio, an estimate of
                            // KL(pi_old || pi_theta)
  double ratio = 0;         // sum
  double ratio_max = 0;     // largest, not a sum
  // Sums of weight * term, before their coefficients.
  double entropy = 0, reference_kl = 0, sdar = 0;

  void Add(const LossStats& other);
  // actor/* of `updates` updates; nothing without a token.
  void PutMetrics(double updates, const AuxOptions& aux,
                  std::map<std::string, double>& metrics) const;
};

// Rows of the batch and what the model under update gives for them. The rows of
// a turn are all there and stand together.
struct ScoredRows {
  absl::Span<const int32_t> rows;
  absl::Span<const double> logprob;  // log pi_theta, [rows]
  absl::Span<const double> entropy;  // nats, [rows]; empty: no entropy bonus
};

// Losses of one token, without weight and coefficients. A loss that the recipe
// has not is 0.
struct TokenTerms {
  double log_ratio = 0;  // the turn's mean with a turn ratio
  double ratio = 0;
  TokenLoss surrogate;  // its gradient is by the log ratio
  TokenLoss kl;         // to the reference model
  TokenLoss sdar;
};

std::vector<TokenTerms> LossTerms(const StepBatch& batch,
                                  const Advantages& advantages,
                                  const Recipe& recipe,
                                  const ScoredRows& scored);

// The part of an update's loss that `scored` is, and its derivatives by log
// pi_theta and by the entropy, [rows] (empty without a bonus). The loss is the
// sum over tokens of
//   weight * (surrogate + kl_coef KL + sdar_lambda SDAR - entropy_coef entropy)
// with weight [tokens of the batch] of TokenLossWeights, times the importance
// weight on the surrogate when there is a cap. Advantages, weights and old
// log-probs are constants.
//
// In double and in the order of the rows, with nothing but the C library: the
// same bits on every CPU. Not finite where a ratio or a KL overflows. Adds to
// `stats`.
struct LossGradient {
  double loss = 0;
  std::vector<double> logprob;
  std::vector<double> entropy;
};
LossGradient UpdateLoss(const StepBatch& batch, const Advantages& advantages,
                        const Recipe& recipe, absl::Span<const double> weight,
                        const ScoredRows& scored, LossStats* stats);

}  // namespace atod::learner
