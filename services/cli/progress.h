#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace atod::cli {

// Reads the complete lines that appear in a metrics.jsonl file while a run
// writes it. A file that shrank (a resume cut later steps) is read anew from
// the step after the last one seen. Not thread-safe.
class StepFollower {
 public:
  using Step = std::map<std::string, double>;  // tags, and "step"

  explicit StepFollower(std::string path) : path_(std::move(path)) {}

  // Steps that are new since the last call, in order.
  std::vector<Step> Poll();

 private:
  std::string path_;
  uint64_t offset_ = 0;
  double last_step_ = -1;
};

// One line about one step: step, reward, success, kl_coef, rl_coef, evaluation,
// tokens/s. Values that the step lacks are left out.
std::string StepLine(const StepFollower::Step& step, uint32_t steps);

// "2h05m", "6m12s", "48s".
std::string ShortDuration(absl::Duration d);

// Expected time to the end from the mean of the steps seen so far; nothing
// before the first.
std::optional<absl::Duration> TimeLeft(absl::Duration elapsed, double done,
                                       double total);

}  // namespace atod::cli
