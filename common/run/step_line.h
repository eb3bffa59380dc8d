#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace atod {

// What was recorded of one step.
struct RecordedStep {
  uint32_t step = 0;
  double time = 0;                        // Unix seconds; 0 when not known
  std::map<std::string, double> scalars;  // by tag; NaN for null
};

// One line of a run's metrics.jsonl (no time) or timings.jsonl, without its
// end: {"step":3,"time":1000,"timing/step_seconds":0.5}. What is not finite is
// null.
std::string WriteStepLine(const RecordedStep& step);

// Nothing for what is no line of a step: a process that died leaves a torn one.
std::optional<RecordedStep> ReadStepLine(std::string_view line);

}  // namespace atod
