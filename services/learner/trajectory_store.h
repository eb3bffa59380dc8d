#pragma once

#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "atod/v1/trajectory.pb.h"
#include "services/learner/work_id.h"

namespace atod::learner {

// RUN_DIR/trajectories: what was accepted, one append-only file a step
// ("train-000012.pb", "eval-000010.pb"). A frame is the payload's length and
// the low half of its XXH3-64, both uint32 little-endian, then a serialised
// Trajectory. Not thread-safe: one thread writes.
class TrajectoryStore {
 public:
  // Creates `dir` when there is none.
  static absl::StatusOr<std::unique_ptr<TrajectoryStore>> Open(
      const std::string& dir);

  // Appends and hands the bytes to the operating system; the trajectory
  // survives the death of this process.
  absl::Status Append(const v1::Trajectory& trajectory);

 private:
  explicit TrajectoryStore(std::string dir) : dir_(std::move(dir)) {}
  const std::string dir_;
};

// RUN_DIR/trajectories/train-000012.pb
std::string TrajectoryFile(const std::string& dir, v1::Purpose purpose,
                           uint32_t step);
// The side file of what the learner computed: train-000012.advantages.jsonl.
std::string AdvantageFile(const std::string& dir, uint32_t step);

// Calls `each` for every whole frame in file order; a torn tail ends the file
// quietly, a wrong checksum is DATA_LOSS.
absl::Status ReadTrajectories(const std::string& path,
                              const std::function<void(v1::Trajectory)>& each);

// Steps with a file, ascending.
absl::StatusOr<std::vector<uint32_t>> StoredSteps(const std::string& dir,
                                                  v1::Purpose purpose);

// Moves files of training steps after `last_step` and evaluations after
// `last_eval` into DIR/superseded-INCARNATION.
absl::Status SupersedeAfter(const std::string& dir, int64_t last_step,
                            int64_t last_eval, uint32_t incarnation);

}  // namespace atod::learner
