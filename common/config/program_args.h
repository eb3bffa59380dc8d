#pragma once

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "common/config/config.h"

namespace atod::config {

// What every service program takes on its command line.
struct ProgramArgs {
  LoadedConfig loaded;
  // --dry-run: check everything that can be checked, start nothing.
  bool dry_run = false;
  // --index N: which of several equal processes this is (rollout workers).
  uint32_t index = 0;
  // --resume: "latest" (the newest checkpoint, or the start when there is none)
  // or a checkpoint's folder; empty for a new run. The learner's alone.
  std::string resume;
  // --fork: RUN@STEP that the new run starts from; ignored when there is
  // something to resume. The learner's alone.
  std::string fork;
};

// What main() does next: run with `args`, or, without them, end with
// `exit_status` (0 after --help and --print-config, 2 after a bad argument or
// configuration, which was printed to `err` as one line `error: …`).
struct ProgramStart {
  std::optional<ProgramArgs> args;
  int exit_status = 0;
};

ProgramStart ParseProgramArgs(const std::string& name,
                              const std::string& summary, int argc,
                              const char* const* argv, std::ostream& out,
                              std::ostream& err);

// The same on stdout and stderr.
ProgramStart ParseProgramArgs(const std::string& name,
                              const std::string& summary, int argc,
                              const char* const* argv);

// Prints `error: MESSAGE` as one line on stderr and returns the exit status:
// 2 for what fails the same way after a restart (INVALID_ARGUMENT, NOT_FOUND,
// FAILED_PRECONDITION), else 1; 0 and nothing printed when `status` is OK.
int ExitStatus(const absl::Status& status);

}  // namespace atod::config
