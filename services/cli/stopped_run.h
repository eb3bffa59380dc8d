#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "common/run/run_folder.h"

namespace atod::cli {

// Whether a learner of this machine has the run's folder.
bool IsLearnerAtWork(const RunFolder& run);

// Of a run without a learner, from its files: how far it came of `steps`, since
// when nothing has been written, its learner's last error, and how it goes on.
// Lines with their ends.
std::string DescribeStoppedRun(const RunFolder& run, uint32_t steps,
                               absl::Time now);

}  // namespace atod::cli
