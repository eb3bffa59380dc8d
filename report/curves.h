#pragma once

#include <string>
#include <vector>

#include "report/chart.h"
#include "report/run_data.h"
#include "report/summary.h"

namespace atod::report {

// The curves of one run by section, as RenderChart takes them; charts whose
// numbers the run does not have are empty.
struct RunCurves {
  std::vector<Chart> learning, signals, weights, policy;
};
RunCurves CurvesOf(const RunData& run);

// The same sections with one line a group: the mean of its runs over the steps
// that all of them have, the single runs faint behind it.
RunCurves CompareCurves(const std::vector<RunData>& runs,
                        const std::vector<Group>& groups);

// d, h, w and the number of samples by turn, one line a file.
std::vector<Chart> DiagnosisCharts(const std::vector<DiagnosisFile>& files);

// Mean w, d and h by turn and step.
std::vector<Heat> TurnHeats(const RunData& run);

}  // namespace atod::report
