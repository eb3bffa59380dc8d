#include "services/learner/run_life.h"

#include <filesystem>

#include "common/base/file.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"

namespace atod::learner {
namespace {

absl::StatusOr<std::unique_ptr<Ledger>> OpenLedger(const RunFolder& run,
                                                   const RunStart& start) {
  const RunCheckpoint& state = start.from.state;
  const CheckpointFolder checkpoint(start.from.dir);
  const bool own = start.origin.run.empty() || state.step > start.origin.step;
  if (!start.from.dir.empty() && own &&
      !std::filesystem::exists(run.ledger())) {
    spdlog::warn("{} is gone: going on with the checkpoint's", run.ledger());
    ATOD_ASSIGN_OR_RETURN(const std::string bytes,
                          ReadFile(checkpoint.ledger()));
    ATOD_RETURN_IF_ERROR(WriteFileAtomic(run.ledger(), bytes));
  }
  return Ledger::Open(run.ledger());
}

}  // namespace

absl::StatusOr<RunLife> BeginLife(const RunFolder& run,
                                  const v1::RunConfig& config,
                                  const RunStart& start,
                                  metrics::Registry* registry, Clock& clock) {
  const RunCheckpoint& state = start.from.state;
  const bool fresh = start.from.dir.empty();
  for (const std::string& folder : {run.checkpoints(), run.evals(), run.logs()})
    ATOD_RETURN_IF_ERROR(MakeDirs(folder));
  ATOD_RETURN_IF_ERROR(
      WriteFileAtomic(run.config(), config::ResolvedYaml(config)));
  if (!fresh) ATOD_RETURN_IF_ERROR(PointLast(run, start.from.dir));
  RunLife life;
  ATOD_ASSIGN_OR_RETURN(life.ledger, OpenLedger(run, start));
  // The checkpoint's step was trained, but its evaluation may be missing.
  const int64_t last = state.last_recorded();
  Continuation from;
  from.last_step = state.step;
  from.last_eval = last;
  if (!fresh) from.snapshot = CheckpointFolder(start.from.dir).ledger();
  from.forked_from = start.origin.ToString();
  from.fork_step = start.origin.step;
  ATOD_ASSIGN_OR_RETURN(life.incarnation, life.ledger->StartIncarnation(from));
  KillPoint(KillLabel::kIncarnationStarted);
  ATOD_RETURN_IF_ERROR(
      SupersedeAfter(run.spool(), state.step, last, life.incarnation));
  ATOD_ASSIGN_OR_RETURN(life.store, TrajectoryStore::Open(run.spool()));
  ATOD_ASSIGN_OR_RETURN(
      life.recorder,
      metrics::StepRecorder::Open(run, config.name(), last, registry, clock));
  return life;
}

}  // namespace atod::learner
