#include "common/base/kill_point.h"

namespace atod {

// Alone in its object file, so that tests/chaos can link another in its place.
void KillPoint(KillLabel) {}

}  // namespace atod
