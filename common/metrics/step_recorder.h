#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "common/metrics/tensorboard.h"

namespace atod::metrics {

// Where the numbers of a run's steps go: RUN_DIR/metrics.jsonl (one object a
// line: "step", "time" (Unix seconds), then the tags; null for a value that is
// not finite), TensorBoard events in RUN_DIR/tb, and gauges in a registry.
// metrics.jsonl is the truth; the events are made from it again on a resume.
// Not thread-safe.
class StepRecorder {
 public:
  // Starts recording into `run_dir`, which exists. Steps after `keep_through`
  // that an earlier life recorded are dropped, and so is a line that it did not
  // finish; -1 drops all. `registry` may be null; `clock` is not owned.
  static absl::StatusOr<std::unique_ptr<StepRecorder>> Open(
      const std::string& run_dir, const std::string& run, int64_t keep_through,
      Registry* registry, Clock& clock);

  // Records one step. Steps come in ascending order, each once.
  absl::Status Record(uint32_t step,
                      const std::map<std::string, double>& scalars);

 private:
  StepRecorder(std::string path, std::string run, Registry* registry,
               Clock& clock, std::unique_ptr<EventWriter> events)
      : path_(std::move(path)),
        run_(std::move(run)),
        registry_(registry),
        clock_(clock),
        events_(std::move(events)) {}

  void SetGauges(const std::map<std::string, double>& scalars);

  const std::string path_;  // metrics.jsonl
  const std::string run_;
  Registry* const registry_;
  Clock& clock_;
  std::unique_ptr<EventWriter> events_;
  std::map<std::string, prometheus::Gauge*> gauges_;
};

}  // namespace atod::metrics
