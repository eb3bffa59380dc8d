#include "common/rpc/signal.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "common/base/log.h"

namespace atod::rpc {

ShutdownSignals::ShutdownSignals(std::function<void(int)> drain)
    : drain_(std::move(drain)) {
  signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC);
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  watcher_ = std::thread([this] { Watch(); });
}

ShutdownSignals::~ShutdownSignals() {
  const uint64_t one = 1;
  if (write(stop_fd_, &one, sizeof one) != sizeof one) std::abort();
  watcher_.join();
  close(signal_fd_);
  close(stop_fd_);
}

int ShutdownSignals::Wait() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&done_));
  return first_;
}

void ShutdownSignals::Wake() {
  absl::MutexLock lock(&mutex_);
  done_ = true;
}

void ShutdownSignals::Watch() {
  bool draining = false;
  while (true) {
    pollfd fds[] = {{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) continue;  // EINTR
    if (fds[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(signal_fd_, &info, sizeof info) != sizeof info) continue;
    const int number = info.ssi_signo;
    if (std::exchange(draining, true)) _exit(128 + number);
    if (end_at_once_) {
      spdlog::info("signal {} while loading: ending", number);
      _exit(0);
    }
    spdlog::info("signal {}: draining; once more ends the process at once",
                 number);
    if (drain_) drain_(number);
    absl::MutexLock lock(&mutex_);
    first_ = number;
    done_ = true;
  }
}

}  // namespace atod::rpc
