#pragma once

#include <cstdint>

namespace atod::learner {

// What training rollouts of a step play, as a function of the step alone, so
// that a resumed run needs no state. `step` counts from 1.
struct RolloutPolicy {
  enum class Mode {
    kWhole,        // the whole episode
    kFrontToBack,  // TCOD F2B: the first turns only
    kBackToFront,  // TCOD B2F: after a prefix of a stored episode
  };
  Mode mode = Mode::kWhole;
  uint32_t steps = 1;  // eta, steps a unit of depth

  // min(1 + floor(n / eta), max_turns) turns; `max_turns` in other modes.
  uint32_t TurnLimit(uint32_t step, uint32_t max_turns) const {
    const uint32_t depth = 1 + step / steps;
    return mode == Mode::kFrontToBack && depth < max_turns ? depth : max_turns;
  }

  // max(0, L - 1 - floor(n / eta)) actions of a stored episode of `length`
  // actions are replayed before the student plays; none in other modes.
  uint32_t PrefixLength(uint32_t step, uint32_t length) const {
    const uint32_t played = 1 + step / steps;
    return mode == Mode::kBackToFront && length > played ? length - played : 0;
  }
};

}  // namespace atod::learner
