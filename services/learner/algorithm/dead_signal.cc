#include "services/learner/algorithm/dead_signal.h"

namespace atod::learner {
namespace {

constexpr double kDead = 1e-6;

}  // namespace

int DeadSignalTracker::Count(int so_far,
                             const std::map<std::string, double>& metrics,
                             const std::string& coefficient,
                             const std::string& signal) const {
  const auto c = metrics.find(coefficient);
  const auto s = metrics.find(signal);
  // A step without a token says nothing.
  if (c == metrics.end() || s == metrics.end()) return so_far;
  if (c->second <= 0 || s->second / c->second >= kDead) return 0;
  return so_far + 1;
}

void DeadSignalTracker::Observe(std::map<std::string, double>& metrics) {
  opd_steps_ = Count(opd_steps_, metrics, "hybrid/kl_coef",
                     "hybrid/opd_signal_abs_mean");
  rl_steps_ =
      Count(rl_steps_, metrics, "hybrid/rl_coef", "hybrid/rl_signal_abs_mean");
  metrics["health/dead_opd_signal"] = opd_steps_ >= patience_;
  metrics["health/dead_rl_signal"] = rl_steps_ >= patience_;
}

}  // namespace atod::learner
