#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "common/base/disk.h"

namespace atod {

// A checkpoint's folder: where each of its files lies.
class CheckpointFolder {
 public:
  CheckpointFolder(std::string dir)  // NOLINT: a path is the folder's name
      : dir_(std::move(dir)) {}

  const std::string& dir() const { return dir_; }
  std::string model() const { return dir_ + "/model"; }
  std::string optimizer() const { return dir_ + "/optimizer.safetensors"; }
  std::string state() const { return dir_ + "/state.json"; }
  std::string config() const { return dir_ + "/config.resolved.yaml"; }
  std::string ledger() const { return dir_ + "/ledger.db"; }

 private:
  std::string dir_;
};

// A run's folder, RUNS_DIR/NAME: where each of its files lies. Nothing else
// spells their names. What is in a file is known to those who write and read
// it; none need be there.
class RunFolder {
 public:
  RunFolder(std::string dir);  // NOLINT: a path is the folder's name
  RunFolder(const std::string& runs_dir, const std::string& name);
  // Of a run that is there; INVALID_ARGUMENT when `dir` is no folder.
  static absl::StatusOr<RunFolder> Find(const std::string& dir);

  // As it was given, without a slash at its end.
  const std::string& dir() const { return dir_; }

  // What the run is.
  std::string config() const { return dir_ + "/config.resolved.yaml"; }
  std::string origin() const { return dir_ + "/fork.json"; }
  // What it did, step by step (StepRecorder).
  std::string metrics() const { return dir_ + "/metrics.jsonl"; }
  std::string timings() const { return dir_ + "/timings.jsonl"; }
  std::string events() const { return dir_ + "/tb"; }
  // Its work and the payloads (Ledger, TrajectoryStore).
  std::string ledger() const { return dir_ + "/ledger.db"; }
  std::string spool() const { return dir_ + "/spool"; }
  // Its weights: step-N/ with the links `last` and `best`, and, by root hash,
  // every version that was published (checkpoint.keep_weights).
  std::string checkpoints() const { return dir_ + "/checkpoints"; }
  CheckpointFolder last() const { return checkpoints() + "/last"; }
  std::string weights() const { return dir_ + "/weights"; }
  std::string weights(const std::string& root_hash) const;
  // Games played for numbers, one a line: panel-STEP.jsonl are the learner's,
  // NAME.jsonl of `atod eval` and `atod diagnose`.
  std::string evals() const { return dir_ + "/evals"; }
  std::string panel(uint32_t step) const;
  std::string diagnoses() const { return dir_ + "/diagnose"; }
  // What it took to get there, as deploy/up.sh leaves it, and the page of it.
  std::string preparation() const { return dir_ + "/seconds.json"; }
  std::string games() const { return dir_ + "/games.txt"; }
  std::string report() const { return dir_ + "/report.html"; }
  // Logs of the services that `atod up` runs.
  std::string logs() const { return dir_ + "/logs"; }
  std::string log(const std::string& service) const;

  // Makes the folder for the learner, which alone writes to it while it holds
  // the lock. FAILED_PRECONDITION when another one does.
  absl::StatusOr<std::unique_ptr<FolderLock>> Lock() const;
  // The same for `atod up` and the logs, from before there is a learner;
  // refused by a learner at work, too.
  absl::StatusOr<std::unique_ptr<FolderLock>> LockLogs() const;

 private:
  std::string dir_;
};

}  // namespace atod
