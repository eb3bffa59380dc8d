#include "common/base/output.h"

#include <cerrno>
#include <cstdio>

namespace atod {

absl::Status FinishOutput() {
  const bool failed = std::ferror(stdout) != 0;
  errno = 0;
  if (std::fflush(stdout) == 0) {
    if (!failed) return absl::OkStatus();
    // An earlier write was lost with its reason: one more tells it.
    if (std::fputc('\n', stdout) != EOF) std::fflush(stdout);
  }
  return absl::ErrnoToStatus(errno != 0 ? errno : EIO,
                             "standard output: cannot write");
}

}  // namespace atod
