#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace atod::learner {

// What one group of a step plays.
struct TaskChoice {
  uint32_t index = 0;     // task in the split's own order
  uint64_t env_seed = 0;  // the environment's randomness, one for the group
};

// The order of training tasks: a pure function of (seed, step, group), so that
// a resumed run goes on where it was without a cursor. The split is walked in
// whole epochs, each in an order of its own: every task comes exactly once an
// epoch, whatever the groups of a step. Not thread-safe (it remembers the
// permutation of the epoch asked for last).
class TaskSource {
 public:
  // `split_size` and `groups_per_step` are at least 1.
  TaskSource(uint64_t seed, uint32_t split_size, uint32_t groups_per_step);

  // `step` from 1, `group` from 0 to groups_per_step - 1.
  TaskChoice Choose(uint32_t step, uint32_t group) const;

 private:
  const uint64_t seed_;
  const uint32_t split_size_;
  const uint32_t groups_per_step_;
  mutable uint64_t epoch_ = UINT64_MAX;
  mutable std::vector<uint32_t> order_;
};

// The tasks of every evaluation: `size` distinct indices of a split of
// `split_size` tasks, ascending; all of them when there are fewer.
std::vector<uint32_t> MakePanel(uint64_t panel_seed, uint32_t split_size,
                                uint32_t size);

// Identity of a panel: split content and indices.
std::string PanelHash(const std::string& split_content_hash,
                      const std::vector<uint32_t>& panel);

}  // namespace atod::learner
