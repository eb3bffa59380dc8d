#pragma once

#include <string>
#include <vector>

namespace atod::envs {

// Display names for `ids` (ascending, lower case), in their order: class and
// number of a mangled id ("apple_bar__plus_…" is "apple 2"); numbers count
// down within a class, so that the first id has the highest. An id without
// "_bar_" is shown as itself with a trailing blank, as the original does.
std::vector<std::string> DemangledNames(const std::vector<std::string>& ids);

}  // namespace atod::envs
