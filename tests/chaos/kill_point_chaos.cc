// KillPoint for the programs of tests/chaos: ATOD_KILL_AT=LABEL:N kills the
// process with SIGKILL when it passes LABEL for the Nth time, and only if
// ATOD_KILL_FILE, which it makes, is not there yet: once in all lives.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "common/base/kill_point.h"

namespace atod {
namespace {

std::string Env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

struct Plan {
  std::string label, file;
  int pass = 0;
};

Plan ReadPlan() {
  const std::string at = Env("ATOD_KILL_AT");
  if (at.empty()) return {};
  const size_t colon = at.find(':');
  Plan plan{at.substr(0, colon), Env("ATOD_KILL_FILE"),
            colon == at.npos ? 0 : std::atoi(at.c_str() + colon + 1)};
  bool known = false;
  for (const std::string_view label : kKillLabels) known |= label == plan.label;
  if (!known || plan.pass < 1) {
    std::fprintf(stderr, "error: ATOD_KILL_AT: found '%s', expected LABEL:N\n",
                 at.c_str());
    std::abort();
  }
  return plan;
}

}  // namespace

void KillPoint(KillLabel label) {
  static const Plan plan = ReadPlan();
  static std::atomic<int> passes{0};
  if (plan.label != kKillLabels[static_cast<int>(label)] ||
      ++passes != plan.pass ||
      open(plan.file.c_str(), O_CREAT | O_EXCL | O_CLOEXEC, 0644) < 0) {
    return;
  }
  kill(getpid(), SIGKILL);
}

}  // namespace atod
