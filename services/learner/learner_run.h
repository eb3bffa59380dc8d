#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "common/metrics/step_recorder.h"
#include "common/run/run_folder.h"
#include "common/weights/version_store.h"
#include "services/learner/algorithm/dead_signal.h"
#include "services/learner/coordinator.h"
#include "services/learner/episode_metrics.h"
#include "services/learner/ledger.h"
#include "services/learner/policy_trainer.h"
#include "services/learner/run_checkpoint.h"
#include "services/learner/run_state.h"
#include "services/learner/skip_watch.h"
#include "services/learner/step_orders.h"
#include "services/learner/step_settings.h"
#include "services/learner/task_directory.h"

namespace atod::learner {

// What a run works with; nothing is owned.
struct RunParts {
  const v1::RunConfig* config = nullptr;
  const Recipe* recipe = nullptr;  // of the configuration
  const RunFolder* folder = nullptr;
  uint32_t incarnation = 1;
  std::string tokenizer_hash;
  std::string tokenizer_file_hash;  // what checkpoints of old versions hold
  std::string config_hash;
  std::map<std::string, std::string> teacher_hashes;  // weights, by name
  int world_size = 1;
  Coordinator* coordinator = nullptr;
  Ledger* ledger = nullptr;
  PolicyTrainer* trainer = nullptr;
  TaskDirectory* tasks = nullptr;
  weights::VersionStore* versions = nullptr;
  RunState* state = nullptr;
  metrics::StepRecorder* recorder = nullptr;
  metrics::Registry* registry = nullptr;
  Clock* clock = nullptr;
};

// The run's thread: evaluate, then for every step give out work, collect it,
// train, publish, evaluate when due, record, checkpoint when due. Ends after
// the last step or when told to stop, each time with a checkpoint.
class LearnerRun {
 public:
  // `start` is the checkpoint that the trainer was loaded from, or a default
  // one for a new run.
  LearnerRun(RunParts parts, RunCheckpoint start);

  // FAILED_PRECONDITION when the checkpoint is of other tasks or teachers.
  absl::Status Run();

 private:
  using Scalars = std::map<std::string, double>;

  absl::Status Prepare();
  // What earlier lives recorded: for those who watch, and for the gauges that
  // look back.
  void ReadRecords();
  // The weights of `checkpoint_.version` go out.
  absl::Status Publish();
  absl::StatusOr<Scalars> TrainStep(uint32_t step);
  // What entered the step's updates, in the ledger and beside the payloads.
  absl::Status Consume(uint32_t step, const StepData& data,
                       const TrainedStep& trained);
  // Adds val/* and remembers the best. False when the run was told to stop.
  absl::StatusOr<bool> Evaluate(uint32_t step, Scalars& scalars, bool* best);
  // Evaluates when due, records, checkpoints when due.
  absl::Status FinishStep(uint32_t step, Scalars scalars);
  absl::Status SaveCheckpoint(bool best);
  // Enters the work in the ledger, opens it and waits for all of it. Tasks that
  // are set aside are dropped. An error when more was dropped than
  // env.max_error_share allows, or everything.
  absl::StatusOr<OrderResult> Play(v1::Purpose purpose, uint32_t step,
                                   std::vector<GroupOrder> groups);
  // A task is not played again when all samples of its group were dropped
  // because it cannot be started. `tasks` has key and samples of each group.
  void SetAside(const std::vector<std::pair<std::string, uint32_t>>& tasks,
                const std::vector<DroppedSample>& dropped);
  StepSettings At(uint32_t step) const;
  bool EvaluationDue(uint32_t step) const;

  const RunParts parts_;
  const v1::RunConfig& config_;
  RunCheckpoint checkpoint_;  // of the last finished step
  EvalTracker evals_;
  SkipWatch skip_watch_;
  DeadSignalTracker dead_signals_;
  std::unique_ptr<StepOrders> orders_;  // after Prepare
  v1::WeightVersion version_;
  double checkpoint_seconds_ = 0;
  bool saved_ = true;  // checkpoint_ is on disk
};

}  // namespace atod::learner
