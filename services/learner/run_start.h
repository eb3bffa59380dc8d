#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"
#include "common/run/run_folder.h"
#include "services/learner/run_checkpoint.h"
#include "services/learner/run_fork.h"

namespace atod::learner {

// Where a life of a run begins.
struct RunStart {
  // A checkpoint of the run, or of the one that it is a fork of; no folder:
  // model.path.
  FoundCheckpoint from;
  ForkOrigin origin;  // of a fork
};

// What a learner was asked for.
struct StartFlags {
  std::string resume = "", fork = "";
  bool dry_run = false;  // the fork is not made
};

// The folder of a new run must be empty of runs; that of a resumed one may be
// anything.
absl::Status CheckFolder(const RunFolder& run, const std::string& resume);

// Finds the start, and makes the fork when it is asked for and not made yet.
// Nothing begins at model.path in the folder of a run that once had a
// checkpoint, nor in that of a fork: INVALID_ARGUMENT with the way out, and
// nothing is changed.
absl::StatusOr<RunStart> FindStart(const RunFolder& run,
                                   const std::string& runs_dir,
                                   const StartFlags& flags);

// Warns of what has changed since the checkpoint that a run goes on from.
// INVALID_ARGUMENT when more steps are done than the run has.
absl::Status TellChanges(const FoundCheckpoint& from,
                         const v1::RunConfig& config);

// What a start with these flags would find: its folder, its checkpoint, whole,
// and what has changed since. Writes nothing.
absl::Status CheckStart(const v1::RunConfig& config, const std::string& resume,
                        const std::string& fork);

}  // namespace atod::learner
