#pragma once

#include <map>
#include <string>

namespace atod::learner {

// Tells when a coefficient is above 0 but its signal (without the coefficient)
// has stayed below 1e-6 for several steps: a teacher that equals the student,
// rewards that never vary. A health gauge and nothing more; early in training
// most groups are flat and that is normal. Not thread-safe.
class DeadSignalTracker {
 public:
  explicit DeadSignalTracker(int patience = 5) : patience_(patience) {}

  // Reads one step's metrics (ComputeAdvantages) and adds the gauges
  // health/dead_opd_signal and health/dead_rl_signal, 0 or 1.
  void Observe(std::map<std::string, double>& metrics);

 private:
  // Steps in a row with a dead signal.
  int Count(int so_far, const std::map<std::string, double>& metrics,
            const std::string& coefficient, const std::string& signal) const;

  const int patience_;
  int opd_steps_ = 0;
  int rl_steps_ = 0;
};

}  // namespace atod::learner
