#pragma once

#include <functional>
#include <set>
#include <string>
#include <thread>

#include "atod/v1/learner.pb.h"
#include "common/base/queue.h"
#include "services/learner/coordinator.h"
#include "services/learner/ledger.h"
#include "services/learner/trajectory_check.h"
#include "services/learner/trajectory_store.h"

namespace atod::learner {

// The way of a submitted trajectory: admitted, checked, stored, entered in the
// ledger, and only then counted and acknowledged. An error after which the
// sample is played again is not stored; the last one is, and warned of. One
// thread does it, and takes what waits together, so that many submissions share
// one transaction. Parts are not owned. Thread-safe.
class Intake {
 public:
  Intake(Coordinator* coordinator, Ledger* ledger, TrajectoryStore* store,
         TrajectoryLimits limits);
  // Answers what was taken, then stops.
  ~Intake();

  // `done` runs exactly once, on the intake's thread or, after the end, at
  // once. An error means that the trajectory was not kept: submit it again.
  using Done = std::function<void(absl::StatusOr<v1::SubmitReply>)>;
  void Submit(v1::Trajectory trajectory, Done done);

 private:
  struct Item {
    v1::Trajectory trajectory;
    Done done;
  };
  void Loop();
  void Handle(std::vector<Item> items);
  // A sample is left out with this error: a person should see the first of each
  // kind.
  void Tell(const v1::Trajectory& failed);

  Coordinator* const coordinator_;
  Ledger* const ledger_;
  TrajectoryStore* const store_;
  const TrajectoryLimits limits_;
  Queue<Item> queue_{4096};
  std::set<std::string> told_;  // of the thread
  std::thread thread_;
};

}  // namespace atod::learner
