#pragma once

#include <cstddef>

namespace atod {

// Whether so many failed episodes are more than the share `max_share` of all
// (env.max_error_share) allows, or all that there is. One of several is always
// allowed.
inline bool TooManyErrors(size_t errors, size_t episodes, double max_share) {
  if (errors == 0) return false;
  if (errors == episodes) return true;
  return errors > 1 && static_cast<double>(errors) >
                           max_share * static_cast<double>(episodes);
}

}  // namespace atod
