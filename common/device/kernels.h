#pragma once

// The arithmetic of T-DUR, GRPO and the hybrid advantage, written once for the
// CPU loop (device.cc) and the CUDA kernels (cuda/advantage_kernels.cu). Plain
// pointers and offsets, no allocation, no error path: callers have checked
// their input. Every function handles one turn, trajectory or group, so that
// one thread of a grid can run it, and adds in index order, so that CPU and
// GPU give the same bits in double (the .cu file is built without fused
// multiply-add). `Real` is double in the product; float is held to 1e-6 by
// tests.

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define ATOD_HOST_DEVICE __host__ __device__
#else
#define ATOD_HOST_DEVICE
#endif

namespace atod::kernels {

// A [begin, end) range of rows.
struct Range {
  int32_t begin;
  int32_t end;
};

ATOD_HOST_DEVICE inline Range RowsOf(const int32_t* offsets, int32_t i) {
  return {offsets[i], offsets[i + 1]};
}

// Eq. 13 and 14: d = mean |log pi_old - log pi_T| and h = mean -log pi_old over
// the tokens of one turn. A turn without tokens gives 0 and 0. Without a
// teacher (`teacher` null) d is 0.
template <typename Real>
ATOD_HOST_DEVICE inline void TurnStatistics(const Real* old_logprob,
                                            const Real* teacher, Range tokens,
                                            Real* d, Real* h) {
  Real distance = 0;
  Real surprise = 0;
  for (int32_t t = tokens.begin; t < tokens.end; ++t) {
    if (teacher != nullptr) {
      const Real gap = old_logprob[t] - teacher[t];
      distance += gap < 0 ? -gap : gap;
    }
    surprise -= old_logprob[t];
  }
  const int32_t n = tokens.end - tokens.begin;
  *d = n > 0 ? distance / static_cast<Real>(n) : Real(0);
  *h = n > 0 ? surprise / static_cast<Real>(n) : Real(0);
}

// Eq. 15: `x` scaled to [0, 1] over the turns that have tokens; 0.5 where the
// range is below 1e-8; 0 for turns without tokens, which do not take part.
// Returns the largest value that took part, 0 when none did.
template <typename Real>
ATOD_HOST_DEVICE inline Real MinMaxTurns(const int32_t* token_begin,
                                         Range turns, const Real* x,
                                         Real* scaled) {
  Real low = 0;
  Real high = 0;
  bool any = false;
  for (int32_t k = turns.begin; k < turns.end; ++k) {
    if (token_begin[k] == token_begin[k + 1]) continue;
    if (!any || x[k] < low) low = x[k];
    if (!any || x[k] > high) high = x[k];
    any = true;
  }
  const Real range = high - low;
  for (int32_t k = turns.begin; k < turns.end; ++k) {
    if (token_begin[k] == token_begin[k + 1]) {
      scaled[k] = 0;
    } else {
      scaled[k] = range < Real(1e-8) ? Real(0.5) : (x[k] - low) / range;
    }
  }
  return high;
}

// How d~ and h~ become a weight.
enum class TdurScore : int32_t {
  kSoftOr,      // 1 - (1 - d~)(1 - h~), Eq. 16
  kEntropy,     // h~
  kDivergence,  // d~
};

// When T-DUR is not to be trusted and every weight is 1: too few turns for a
// ranking, or a student so near its teacher that min-max would blow up noise.
struct TdurOptions {
  bool enabled = true;        // false: every weight is 1
  int32_t min_turns = 0;      // fewer turns with tokens: 1
  double min_divergence = 0;  // largest d below it: 1
  TdurScore score = TdurScore::kSoftOr;
};

template <typename Real>
ATOD_HOST_DEVICE inline Real Score(TdurScore score, Real d_norm, Real h_norm) {
  if (score == TdurScore::kEntropy) return h_norm;
  if (score == TdurScore::kDivergence) return d_norm;
  return 1 - (1 - d_norm) * (1 - h_norm);
}

// Eq. 15 and 16 for one trajectory. Turns without tokens get 0. Returns whether
// the weights are T-DUR's, i.e. no guard held.
template <typename Real>
ATOD_HOST_DEVICE inline bool WeighTurns(const int32_t* token_begin, Range turns,
                                        const TdurOptions& options,
                                        const Real* d, const Real* h,
                                        Real* d_norm, Real* h_norm, Real* w) {
  const Real largest_d = MinMaxTurns(token_begin, turns, d, d_norm);
  MinMaxTurns(token_begin, turns, h, h_norm);
  int32_t filled = 0;
  for (int32_t k = turns.begin; k < turns.end; ++k) {
    if (token_begin[k] < token_begin[k + 1]) ++filled;
  }
  const bool active = options.enabled && filled > 0 &&
                      filled >= options.min_turns &&
                      !(largest_d < static_cast<Real>(options.min_divergence));
  for (int32_t k = turns.begin; k < turns.end; ++k) {
    if (token_begin[k] == token_begin[k + 1]) {
      w[k] = 0;
    } else {
      w[k] = active ? Score(options.score, d_norm[k], h_norm[k]) : Real(1);
    }
  }
  return active;
}

// The std of Eq. 2: with Bessel's correction, of the group as a population, or
// no division at all.
enum class GroupStd : int32_t { kBessel, kPopulation, kNone };

struct GroupOptions {
  bool raw_single = false;  // a group of one keeps its reward
  GroupStd std = GroupStd::kBessel;
};

// Eq. 2 for one group of items `member[range]` (trajectories, or turn rows):
// (r - mean) / (std + 1e-6), or r - mean with kNone. Exactly 0 for equal
// rewards, which is tested on the rewards themselves: rounding in the mean
// would leave noise that the division blows up. A group of one gives 0, or with
// `raw_single` r / (1 + 1e-6), as if its mean were 0 and its std 1. Returns
// whether all rewards are equal.
template <typename Real>
ATOD_HOST_DEVICE inline bool NormalizeGroup(const int32_t* member, Range range,
                                            GroupOptions options,
                                            const Real* reward,
                                            Real* advantage) {
  const int32_t n = range.end - range.begin;
  Real sum = 0;
  bool flat = true;
  for (int32_t i = range.begin; i < range.end; ++i) {
    sum += reward[member[i]];
    if (reward[member[i]] != reward[member[range.begin]]) flat = false;
  }
  if (flat) {
    for (int32_t i = range.begin; i < range.end; ++i) {
      advantage[member[i]] = options.raw_single && n == 1
                                 ? reward[member[i]] / (1 + Real(1e-6))
                                 : Real(0);
    }
    return true;
  }
  const Real mean = sum / static_cast<Real>(n);
  Real squares = 0;
  for (int32_t i = range.begin; i < range.end; ++i) {
    const Real gap = reward[member[i]] - mean;
    squares += gap * gap;
  }
  using std::sqrt;
  const int32_t count = options.std == GroupStd::kBessel ? n - 1 : n;
  const Real divisor =
      options.std == GroupStd::kNone
          ? Real(1)
          : sqrt(squares / static_cast<Real>(count)) + Real(1e-6);
  for (int32_t i = range.begin; i < range.end; ++i)
    advantage[member[i]] = (reward[member[i]] - mean) / divisor;
  return false;
}

// The two terms of Eq. 8 and 9 for one token; A_t is their sum. `signal` is
// log pi_T - log pi_old, 0 without a teacher.
template <typename Real>
struct HybridTerms {
  Real distillation;  // kappa w_k (log pi_T - log pi_old)
  Real reward;        // rho A_i
};

template <typename Real>
ATOD_HOST_DEVICE inline HybridTerms<Real> HybridAdvantage(
    Real kl_coef, Real weight, Real signal, Real rl_coef,
    Real group_advantage) {
  return {kl_coef * (weight * signal), rl_coef * group_advantage};
}

}  // namespace atod::kernels
