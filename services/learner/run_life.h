#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "common/metrics/step_recorder.h"
#include "common/run/run_folder.h"
#include "services/learner/ledger.h"
#include "services/learner/run_start.h"
#include "services/learner/trajectory_store.h"

namespace atod::learner {

// The files of one life of a run, open for writing.
struct RunLife {
  uint32_t incarnation = 0;
  std::unique_ptr<Ledger> ledger;
  std::unique_ptr<TrajectoryStore> store;
  std::unique_ptr<metrics::StepRecorder> recorder;
};

// Begins a life at `start`, in a folder whose lock is held: writes the
// configuration, supersedes what earlier lives did after `start`, and opens the
// files. Parts are not owned.
absl::StatusOr<RunLife> BeginLife(const RunFolder& run,
                                  const v1::RunConfig& config,
                                  const RunStart& start,
                                  metrics::Registry* registry, Clock& clock);

}  // namespace atod::learner
