#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/run/run_folder.h"
#include "common/run/step_line.h"

namespace atod::cli {

// Reads the complete lines that appear in metrics.jsonl and timings.jsonl while
// a run writes them. A file that was written anew (a resume cut later steps) is
// read anew from the step after the last one given. Not thread-safe.
class StepFollower {
 public:
  // Steps that were recorded before `since` belong to an earlier life of the
  // run.
  StepFollower(const RunFolder& run, absl::Time since)
      : metrics_{run.metrics()},
        timings_{run.timings()},
        since_(absl::ToDoubleSeconds(since - absl::UnixEpoch())) {}

  // Steps that are new since the last call, in order.
  std::vector<RecordedStep> Poll();

  // The last step of an earlier life that was seen; nothing in a new run.
  std::optional<uint32_t> earlier() const { return earlier_; }

 private:
  struct File {
    std::string path;
    uint64_t inode = 0;
    uint64_t offset = 0;
    std::vector<RecordedStep> Poll();
  };
  File metrics_, timings_;
  const double since_;
  std::map<uint32_t, RecordedStep> times_;  // of steps not yet given out
  int64_t last_step_ = -1;
  std::optional<uint32_t> earlier_;
};

// One line about one step: step, reward, success, kl_coef, rl_coef, evaluation,
// tokens/s. Values that the step lacks are left out.
std::string StepLine(const RecordedStep& step, uint32_t steps);

// "2h05m", "6m12s", "48s".
std::string ShortDuration(absl::Duration d);

// Expected time to the end from the mean of the steps seen so far; nothing
// before the first.
std::optional<absl::Duration> TimeLeft(absl::Duration elapsed, double done,
                                       double total);

}  // namespace atod::cli
