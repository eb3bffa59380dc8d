#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace atod::cli {

// A child process to run.
struct ProcessSpec {
  std::string name;                // unique; names the log file
  std::vector<std::string> argv;   // argv[0] is the program's path
  std::vector<std::string> again;  // arguments added after the first life
  std::map<std::string, std::string> env;  // added to this process's own
  std::string log_path;                    // stdout and stderr are appended
};

// What Wait saw.
struct SupervisorEvent {
  enum class Kind { kTimeout, kExited, kInterrupted };
  Kind kind = Kind::kTimeout;
  std::string name;   // kExited: which process
  int exit_code = 0;  // kExited: 0-255, or 128 + signal
  std::string how;    // kExited: "exit status 3", "signal 9 (Killed)"
};

// Starts child processes, notices their ends and the user's Ctrl-C through one
// signalfd, and ends them all. One thread owns it; it must be made before the
// process has other threads, because it blocks SIGCHLD, SIGINT and SIGTERM.
// Children die with this process (PR_SET_PDEATHSIG).
class Supervisor {
 public:
  Supervisor();
  ~Supervisor();  // kills what still runs
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // Starts it, or starts it again after it ended.
  absl::Status Start(const ProcessSpec& spec);

  // The next event, or kTimeout after `timeout`.
  SupervisorEvent Wait(absl::Duration timeout);

  // Sends `signal` to one process; nothing when it does not run.
  void Signal(const std::string& name, int signal);

  bool running(const std::string& name) const;
  pid_t pid(const std::string& name) const;

  // SIGTERM to all, SIGKILL to what is left after `grace`. A further Ctrl-C
  // while waiting kills at once.
  void StopAll(absl::Duration grace);

 private:
  bool AnyRunning() const;
  // Collects one ended child.
  bool Reap(SupervisorEvent* event);

  int signal_fd_ = -1;
  std::map<std::string, pid_t> pids_;  // 0: not running
  std::map<std::string, int> lives_;
};

}  // namespace atod::cli
