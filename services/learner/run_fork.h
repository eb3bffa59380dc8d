#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/run/run_folder.h"

namespace atod::learner {

// Where a run began that is a fork of another; RunFolder::origin().
struct ForkOrigin {
  std::string run;  // its folder
  uint32_t step = 0;

  std::string ToString() const;  // "RUN@STEP", nothing when it is no fork
};

// Makes `run` a run that stands where `from`, "RUN@STEP", stood at its
// checkpoint of that step: the checkpoint (and the best one before it), and the
// record of the steps up to there. RUN is a folder, or a name in `runs_dir`.
// From then on it resumes like any other. May be repeated after a crash.
absl::Status ForkRun(const std::string& from, const std::string& runs_dir,
                     const RunFolder& run);

// What ForkRun noted; an empty run when the folder is no fork.
absl::StatusOr<ForkOrigin> ReadForkOrigin(const RunFolder& run);

}  // namespace atod::learner
