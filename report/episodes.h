#pragma once

#include <string>

#include "report/run_data.h"

namespace atod::report {

// The selected trajectories of a run, one foldable table each: what the student
// saw and wrote, d, h, w, and the advantage of every token (paper, C.2).
std::string RenderEpisodes(const RunData& run);

}  // namespace atod::report
