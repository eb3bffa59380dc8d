#pragma once

#include <string>
#include <vector>

#include "report/run_data.h"

namespace atod::report {

// What the run's numbers leave out, one plain sentence each, with counts, steps
// and reasons: episodes that ended in errors, panel and held-out games that
// were not played to an end, evaluations of other games than the last one's,
// trajectories that cannot be read. Nothing of a run that is whole.
std::vector<std::string> LeftOut(const RunData& run);

// The same of several, each sentence behind its run's name.
std::vector<std::string> LeftOutOf(const std::vector<RunData>& runs);

}  // namespace atod::report
