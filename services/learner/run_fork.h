#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/run/run_folder.h"
#include "services/learner/run_checkpoint.h"

namespace atod::learner {

// Where a run began that is a fork of another; RunFolder::origin().
struct ForkOrigin {
  std::string run;  // its folder
  uint32_t step = 0;

  std::string ToString() const;  // "RUN@STEP", nothing when it is no fork
  bool operator==(const ForkOrigin&) const = default;
};

// Of "RUN@STEP"; RUN is a folder, or a name in `runs_dir`.
absl::StatusOr<ForkOrigin> ParseFork(const std::string& from,
                                     const std::string& runs_dir);

// The checkpoint that a fork begins with, where it lies, verified.
absl::StatusOr<FoundCheckpoint> OpenFork(const ForkOrigin& from);

// Makes `run` a run that stands where `from.run` stood at its checkpoint of
// that step: the checkpoint (and the best one before it), and the record of the
// steps up to there. From then on it resumes like any other. Everything is
// verified before the folder is touched. May be repeated after a crash.
absl::Status ForkRun(const ForkOrigin& from, const RunFolder& run);

// What ForkRun noted; an empty run when the folder is no fork.
absl::StatusOr<ForkOrigin> ReadForkOrigin(const RunFolder& run);

}  // namespace atod::learner
