// metrics.jsonl, as a resumed run and as a follower read it.
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/metrics/step_recorder.h"
#include "services/cli/progress.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  atod::WriteInput("metrics.jsonl", atod::Text(data, size));
  atod::cli::StepFollower follower(atod::FuzzDir(), absl::InfinitePast());
  for (const auto& step : follower.Poll()) atod::cli::StepLine(step, 10);
  atod::FakeClock clock;
  atod::metrics::StepRecorder::Open(atod::FuzzDir(), "run", 5, nullptr, clock)
      .status()
      .IgnoreError();
  return 0;
}
