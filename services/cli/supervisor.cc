#include "services/cli/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace atod::cli {
namespace {

sigset_t OwnSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

std::vector<std::string> Environment(
    const std::map<std::string, std::string>& extra) {
  std::vector<std::string> out;
  for (char** e = environ; *e != nullptr; ++e) {
    const std::string entry(*e);
    if (!extra.contains(entry.substr(0, entry.find('=')))) out.push_back(entry);
  }
  for (const auto& [key, value] : extra)
    out.push_back(absl::StrCat(key, "=", value));
  return out;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

Supervisor::Supervisor() {
  const sigset_t set = OwnSignals();
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

Supervisor::~Supervisor() {
  for (const auto& [name, pid] : pids_)
    if (pid > 0) kill(pid, SIGKILL);
  while (AnyRunning()) {
    SupervisorEvent event;
    if (!Reap(&event)) Wait(absl::Milliseconds(100));
  }
  close(signal_fd_);
  const sigset_t set = OwnSignals();
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

absl::Status Supervisor::Start(const ProcessSpec& spec) {
  std::vector<std::string> args = spec.argv;
  if (lives_[spec.name]++ > 0)
    args.insert(args.end(), spec.again.begin(), spec.again.end());
  std::vector<std::string> environment = Environment(spec.env);
  const std::vector<char*> argv = Pointers(args), envp = Pointers(environment);
  if (access(argv[0], X_OK) != 0)
    return absl::NotFoundError(
        absl::StrCat(argv[0], ": no such program; build it first"));
  const int log = open(spec.log_path.c_str(),
                       O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0)
    return absl::ErrnoToStatus(errno,
                               absl::StrCat(spec.log_path, ": cannot open"));
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    close(log);
    return absl::ErrnoToStatus(errno, "cannot fork");
  }
  if (pid == 0) {
    // Only async-signal-safe calls from here on. An own process group: the
    // terminal's Ctrl-C reaches the supervisor alone, which ends the children
    // in order.
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    const sigset_t set = OwnSignals();
    sigprocmask(SIG_UNBLOCK, &set, nullptr);
    const int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  close(log);
  pids_[spec.name] = pid;
  return absl::OkStatus();
}

bool Supervisor::Reap(SupervisorEvent* event) {
  for (auto& [name, pid] : pids_) {
    int status = 0;
    if (pid <= 0 || waitpid(pid, &status, WNOHANG) != pid) continue;
    pid = 0;
    event->kind = SupervisorEvent::Kind::kExited;
    event->name = name;
    if (WIFSIGNALED(status)) {
      const int s = WTERMSIG(status);
      event->exit_code = 128 + s;
      event->how = absl::StrCat("signal ", s, " (", strsignal(s), ")");
    } else {
      event->exit_code = WEXITSTATUS(status);
      event->how = absl::StrCat("exit status ", event->exit_code);
    }
    return true;
  }
  return false;
}

SupervisorEvent Supervisor::Wait(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    SupervisorEvent event;
    if (Reap(&event)) return event;
    const absl::Duration left =
        std::max(absl::ZeroDuration(), deadline - absl::Now());
    pollfd p{signal_fd_, POLLIN, 0};
    poll(&p, 1, static_cast<int>(absl::ToInt64Milliseconds(left)));
    signalfd_siginfo info;
    while (read(signal_fd_, &info, sizeof(info)) == sizeof(info)) {
      if (info.ssi_signo != SIGCHLD) {
        event.kind = SupervisorEvent::Kind::kInterrupted;
        return event;
      }
    }
    if (Reap(&event)) return event;
    if (absl::Now() >= deadline) return event;
  }
}

void Supervisor::Signal(const std::string& name, int signal) {
  if (running(name)) kill(pids_[name], signal);
}

bool Supervisor::running(const std::string& name) const {
  return pid(name) > 0;
}

pid_t Supervisor::pid(const std::string& name) const {
  const auto it = pids_.find(name);
  return it == pids_.end() ? 0 : it->second;
}

bool Supervisor::AnyRunning() const {
  return std::any_of(pids_.begin(), pids_.end(),
                     [](const auto& p) { return p.second > 0; });
}

void Supervisor::StopAll(absl::Duration grace) {
  for (const auto& [name, pid] : pids_)
    if (pid > 0) kill(pid, SIGTERM);
  const absl::Time deadline = absl::Now() + grace;
  bool killed = false;
  while (AnyRunning()) {
    const SupervisorEvent event = Wait(absl::Milliseconds(200));
    if (!killed && (event.kind == SupervisorEvent::Kind::kInterrupted ||
                    absl::Now() >= deadline)) {
      killed = true;
      for (const auto& [name, pid] : pids_)
        if (pid > 0) kill(pid, SIGKILL);
    }
  }
}

}  // namespace atod::cli
