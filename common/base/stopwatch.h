#pragma once

#include "absl/time/time.h"
#include "common/base/clock.h"

namespace atod {

// Seconds by a clock, which is not owned.
class Stopwatch {
 public:
  explicit Stopwatch(Clock* clock) : clock_(clock), start_(clock->Now()) {}

  double Seconds() const {
    return absl::ToDoubleSeconds(clock_->Now() - start_);
  }
  // Seconds, and starts again.
  double Lap() {
    const double seconds = Seconds();
    start_ = clock_->Now();
    return seconds;
  }

 private:
  Clock* clock_;
  absl::Time start_;
};

}  // namespace atod
