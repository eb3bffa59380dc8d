#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "common/metrics/tensorboard.h"
#include "common/run/run_folder.h"
#include "common/run/step_line.h"

namespace atod::metrics {

// Where the numbers of a run's steps go: metrics.jsonl, timings.jsonl (the
// step's time, and what is MeasuredByClock), TensorBoard events, and gauges in
// a registry.
// metrics.jsonl holds only what the run computes, so that a run that was killed
// and resumed leaves the same bytes as an unbroken one. The two files are the
// truth; the events are made from them again on a resume. Not thread-safe.
class StepRecorder {
 public:
  // Starts recording into `folder`, which exists. Steps after `keep_through`
  // that an earlier life recorded are dropped, and so is a line that it did not
  // finish; -1 drops all. `registry` may be null; `clock` is not owned.
  static absl::StatusOr<std::unique_ptr<StepRecorder>> Open(
      const RunFolder& folder, const std::string& run, int64_t keep_through,
      Registry* registry, Clock& clock);

  // Records one step, durably. Steps come in ascending order, each once.
  absl::Status Record(uint32_t step,
                      const std::map<std::string, double>& scalars);

  // What earlier lives recorded and this one kept.
  const std::vector<RecordedStep>& kept() const { return kept_; }

 private:
  StepRecorder(RunFolder folder, std::string run, Registry* registry,
               Clock& clock, std::unique_ptr<EventWriter> events,
               std::vector<RecordedStep> kept)
      : folder_(std::move(folder)),
        run_(std::move(run)),
        registry_(registry),
        clock_(clock),
        events_(std::move(events)),
        kept_(std::move(kept)) {}

  void SetGauges(const std::map<std::string, double>& scalars);

  const RunFolder folder_;
  const std::string run_;
  Registry* const registry_;
  Clock& clock_;
  std::unique_ptr<EventWriter> events_;
  const std::vector<RecordedStep> kept_;
  std::map<std::string, prometheus::Gauge*> gauges_;
};

}  // namespace atod::metrics
