#pragma once

#include <string>
#include <vector>

#include "report/run_data.h"

namespace atod::report {

enum class Verdict {
  kGood,
  kNotice,  // worth a look, no fault by itself
  kBad,
  kUnknown,  // does not apply to this recipe, or too few steps
};

struct HealthCheck {
  std::string name{};
  Verdict verdict = Verdict::kUnknown;
  std::string finding{};  // what was seen, with numbers and steps
};

// The signals of the paper's Appendix B.3 over a whole run, with the bounds of
// deploy/alerts.yml: kl_coef must not rise, rl_coef must not fall, entropy must
// not collapse, the teacher's signal outweighs the reward's early and not late,
// no signal is dead, steps do not stall; then what else makes a curve
// untrustworthy.
std::vector<HealthCheck> CheckHealth(const RunData& run);

}  // namespace atod::report
