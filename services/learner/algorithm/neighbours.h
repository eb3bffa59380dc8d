#pragma once

#include <vector>

namespace atod::learner {

// Arithmetic of neighbouring methods that no recipe uses yet, pinned by the
// reference values of the tests: what a new piece starts from.

// RLSD: A ((1 - l) + l clip(exp(sign(A) gap), 1 - clip, 1 + clip)) with gap =
// log pi under the alternative context - log pi.
double RlsdAdvantage(double advantage, double gap, double l, double clip);

// GiGPO's second baseline: the returns of steps that share an anchor state,
// minus their mean, over their standard deviation + 1e-6 when `divide`. 0 for a
// step that is alone.
std::vector<double> AnchorAdvantages(const std::vector<double>& returns,
                                     bool divide);

// Over a vocabulary: entropy in nats, and the reverse KL of `student` to
// `teacher` on the teacher's `k` likeliest tokens, both renormalised to them.
double Entropy(const std::vector<double>& p);
double TopKReverseKl(const std::vector<double>& student,
                     const std::vector<double>& teacher, int k);

// TrOPD's agreement min(pi_T / pi_S, 1) of one token.
double Agreement(double teacher, double student);

}  // namespace atod::learner
