#include "common/base/output.h"

#include <cerrno>
#include <cstdio>

namespace atod {

absl::Status FinishOutput() {
  // What an earlier write could not bring there is tried again, so that the
  // reason is known.
  const bool failed = std::ferror(stdout) != 0;
  errno = 0;
  if (std::fflush(stdout) == 0 && !failed) return absl::OkStatus();
  return absl::ErrnoToStatus(errno != 0 ? errno : EIO,
                             "standard output: cannot write");
}

}  // namespace atod
