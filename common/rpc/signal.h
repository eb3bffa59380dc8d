#pragma once

#include <atomic>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace atod::rpc {

// SIGTERM and SIGINT of a program. Make it first in main(), before any other
// thread: it blocks both signals in the calling thread and in all that this
// starts. The first signal calls `drain` on the watcher's thread and releases
// Wait(); a second one ends the process at once with status 128 + signal.
//
//   rpc::ShutdownSignals signals;
//   … start …
//   signals.Wait();
//   server->Shutdown(absl::Seconds(10));
//
// Child processes inherit the blocked signals over exec: a program that starts
// others resets their mask. Also makes the process ignore SIGPIPE.
class ShutdownSignals {
 public:
  // `drain` may be empty; it must not block for long, nor destroy this.
  explicit ShutdownSignals(std::function<void(int signal)> drain = nullptr);
  ~ShutdownSignals();
  ShutdownSignals(const ShutdownSignals&) = delete;
  ShutdownSignals& operator=(const ShutdownSignals&) = delete;

  // Blocks until the first signal (returns it) or Wake() (returns 0).
  int Wait();
  // While on, the first signal already ends the process, with status 0: a
  // program that is still loading has promised nothing to anybody.
  void EndAtOnce(bool on) { end_at_once_ = on; }

  // Ends Wait() without a signal: the work is done.
  void Wake();

 private:
  void Watch();

  const std::function<void(int)> drain_;
  std::atomic<bool> end_at_once_ = false;
  int signal_fd_ = -1;
  int stop_fd_ = -1;
  absl::Mutex mutex_;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  int first_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread watcher_;
};

}  // namespace atod::rpc
