#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/run/run_folder.h"

namespace atod::learner {

// state.json of a checkpoint: where a run is after a step. The order of tasks
// and all schedules are functions of seed and step; weights, moments and the
// ledger, with the digest of every update, lie beside it.
struct RunCheckpoint {
  std::string run;       // its name; of a fork's first one, the parent's
  uint32_t step = 0;     // done
  uint64_t updates = 0;  // optimiser updates so far
  uint32_t incarnation = 0;
  uint64_t version = 0;       // number of the weights
  std::string root_hash;      // and their identity
  std::vector<double> evals;  // val/success_rate of every evaluation
  uint32_t best_step = 0;
  // Numbers of `step` that are not recorded yet, because its evaluation was
  // interrupted; empty otherwise.
  std::map<std::string, double> pending;
  // Tasks, "SPLIT/TASK_ID", of which no environment could be started, and why.
  std::map<std::string, std::string> set_aside;
  std::string config_hash, tokenizer_hash, train_hash, panel_hash;
  std::map<std::string, std::string> teacher_hashes;  // weights, by name
  int world_size = 1;

  // The last step that was evaluated (if due) and recorded; -1 for a new run.
  int64_t last_recorded() const {
    const bool done = pending.empty() && (step > 0 || !evals.empty());
    return int64_t{step} - (done ? 0 : 1);
  }
};

// A checkpoint of the run, the manifest last. `write` fills the folder with
// everything but state and manifest. Of the others the newest `keep` stay, and
// what the links `last` and `best` point at.
absl::Status SaveCheckpoint(
    const RunFolder& run, const RunCheckpoint& state, bool best, uint32_t keep,
    const std::function<absl::Status(const CheckpointFolder&)>& write);

// After a life that died while it saved, for the one who owns the folder: a
// checkpoint that made way for another that did not get its place is put back,
// what was not finished goes.
void TidyCheckpoints(const RunFolder& run);

// Folders of the run's complete checkpoints, by step.
std::map<uint32_t, std::string> Checkpoints(const RunFolder& run);

// The folder that `resume` means: "latest" is
// the one that `last` points at, or else the newest complete one, or "" when
// there is none; anything else is a checkpoint's folder.
absl::StatusOr<std::string> FindCheckpoint(const RunFolder& run,
                                           const std::string& resume);

// Verifies every file and reads state.json. INVALID_ARGUMENT names the file
// that is damaged, missing or not listed in the manifest.
absl::StatusOr<RunCheckpoint> LoadCheckpoint(const std::string& dir);

// What `resume` means, loaded. A damaged checkpoint is passed over by "latest",
// with a warning, for the newest one before it that is whole; asked for by its
// folder, or with none left, it is refused. No folder: there is no checkpoint.
struct FoundCheckpoint {
  std::string dir;
  RunCheckpoint state;
};
absl::StatusOr<FoundCheckpoint> OpenCheckpoint(const RunFolder& run,
                                               const std::string& resume);

// Another set of games, panel, tokenizer or teacher than the checkpoint's is
// another run: FAILED_PRECONDITION with the first difference. Old checkpoints
// have the hash of the tokenizer's file. Other ranks are a warning.
absl::Status CheckSameRun(const RunCheckpoint& before, const RunCheckpoint& now,
                          const std::string& tokenizer_file_hash);

// The run's complete checkpoint of `step`; an error lists those that there are.
absl::StatusOr<std::string> CheckpointOfStep(const RunFolder& run,
                                             uint32_t step);

// Copies a checkpoint into another run's folder, where `link` ("last", "best")
// points at it.
absl::Status CopyCheckpoint(const std::string& dir, const RunFolder& to,
                            const std::string& link);

// Makes `last` point at `dir` when this is one of the run's checkpoints.
absl::Status PointLast(const RunFolder& run, const std::string& dir);

}  // namespace atod::learner
