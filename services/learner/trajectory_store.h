#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "atod/v1/trajectory.pb.h"
#include "common/run/run_folder.h"
#include "services/learner/work_id.h"

namespace atod::learner {

// RunFolder::spool(): the payloads of what was accepted, one append-only file a
// step
// ("train-000012.spool", "eval-000010.spool"). A frame is a header of four
// little-endian uint32 (magic, length of the payload, CRC-32 of the payload,
// CRC-32 of the twelve bytes before) and a serialised Trajectory. Not
// thread-safe: one thread writes.
class TrajectoryStore {
 public:
  // Creates `dir` when there is none.
  static absl::StatusOr<std::unique_ptr<TrajectoryStore>> Open(
      const std::string& dir);
  ~TrajectoryStore();

  // Writes a frame; it may be acknowledged after the next Sync. A file that an
  // earlier life left loses its torn tail first; DATA_LOSS when it is corrupt.
  absl::Status Append(const v1::Trajectory& trajectory);
  // Brings all appended frames to the disk. When that fails they are gone.
  absl::Status Sync();

 private:
  struct File {
    int fd = -1;  // open between Append and Sync
    int64_t end = 0;
    int64_t synced = 0;  // bytes known to be on the disk
  };
  explicit TrajectoryStore(std::string dir) : dir_(std::move(dir)) {}
  absl::StatusOr<File*> Opened(const std::string& path);

  const std::string dir_;
  std::map<std::string, File> files_;  // touched in this life
  bool created_ = false;               // a file, since the last Sync
};

// The frames of one file that is in memory, in order; `name` is for messages.
// Returns the end of the last whole frame: what follows is the torn tail of a
// write that was never acknowledged. A frame that was written whole and is not
// what was written is DATA_LOSS naming `name` and its offset.
absl::StatusOr<uint64_t> ReadFrames(
    std::string_view bytes, const std::string& name,
    const std::function<void(v1::Trajectory)>& each);

// The same for a file; a torn tail ends it quietly.
absl::Status ReadTrajectories(const std::string& path,
                              const std::function<void(v1::Trajectory)>& each);

// The same of all that is whole, for those who show what there is. The error
// says what is left out: UNAVAILABLE when it is a torn tail alone, which a
// write under way looks like, too.
absl::Status SalvageTrajectories(
    const std::string& path, const std::function<void(v1::Trajectory)>& each);

// The trajectory of `id` that a run accepted; an error names the file looked
// at.
absl::StatusOr<v1::Trajectory> FindTrajectory(const RunFolder& run,
                                              const WorkId& id);

// DIR/train-000012.spool
std::string TrajectoryFile(const std::string& dir, v1::Purpose purpose,
                           uint32_t step);
// The side file of what the learner computed: train-000012.advantages.jsonl.
std::string AdvantageFile(const std::string& dir, uint32_t step);

// Steps with a file, ascending.
absl::StatusOr<std::vector<uint32_t>> StoredSteps(const std::string& dir,
                                                  v1::Purpose purpose);

// Moves files of training steps after `last_step` and evaluations after
// `last_eval` into DIR/superseded-INCARNATION, without their torn tails.
absl::Status SupersedeAfter(const std::string& dir, int64_t last_step,
                            int64_t last_eval, uint32_t incarnation);

}  // namespace atod::learner
