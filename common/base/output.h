#pragma once

#include "absl/status/status.h"

namespace atod {

// Brings what was printed to where stdout goes. An error, with the system's
// reason, when some of it did not get there: a program calls this last and ends
// with another status than 0.
absl::Status FinishOutput();

}  // namespace atod
