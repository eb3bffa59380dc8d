#include "services/learner/algorithm/neighbours.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace atod::learner {

double RlsdAdvantage(double advantage, double gap, double l, double clip) {
  const double sign = advantage < 0 ? -1 : 1;
  return advantage *
         ((1 - l) + l * std::clamp(std::exp(sign * gap), 1 - clip, 1 + clip));
}

std::vector<double> AnchorAdvantages(const std::vector<double>& returns,
                                     bool divide) {
  const double n = static_cast<double>(returns.size());
  std::vector<double> out(returns.size(), 0.0);
  if (returns.size() < 2) return out;
  const double mean = std::accumulate(returns.begin(), returns.end(), 0.0) / n;
  double squares = 0;
  for (const double r : returns) squares += (r - mean) * (r - mean);
  const double scale = divide ? std::sqrt(squares / (n - 1)) + 1e-6 : 1;
  for (size_t i = 0; i < out.size(); ++i) out[i] = (returns[i] - mean) / scale;
  return out;
}

double Entropy(const std::vector<double>& p) {
  double sum = 0;
  for (const double x : p) sum -= x > 0 ? x * std::log(x) : 0;
  return sum;
}

double TopKReverseKl(const std::vector<double>& student,
                     const std::vector<double>& teacher, int k) {
  std::vector<int> ids(teacher.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int a, int b) { return teacher[a] > teacher[b]; });
  ids.resize(std::min<size_t>(ids.size(), k));
  double p = 0, q = 0, sum = 0;
  for (const int a : ids) {
    p += student[a];
    q += teacher[a];
  }
  for (const int a : ids)
    sum += student[a] / p * std::log(student[a] / p / (teacher[a] / q));
  return sum;
}

double Agreement(double teacher, double student) {
  return std::min(teacher / student, 1.0);
}

}  // namespace atod::learner
