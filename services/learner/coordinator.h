#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "atod/v1/learner.pb.h"
#include "atod/v1/trajectory.pb.h"
#include "common/base/clock.h"
#include "services/learner/work_id.h"

namespace atod::learner {

struct CoordinatorOptions {
  std::string run_id;
  uint32_t incarnation = 1;
  std::string config_yaml;  // config.resolved.yaml
  // What workers must agree on; empty hashes are not compared.
  v1::ModelInfo model;
  // PlaySettings of the run; none: not compared.
  std::vector<std::pair<std::string, std::string>> settings;
  float beat_seconds = 2;
  // A broken stream gives its leases back after `grace`, a worker that says
  // nothing after `silent`.
  absl::Duration grace = absl::Seconds(1);
  absl::Duration silent = absl::Seconds(120);
  // Work that a worker gave back waits before it is granted again, doubling
  // from `backoff` to `max_backoff` with each attempt.
  absl::Duration backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(5);
  // A sample that failed so often, because its episodes ended in errors or its
  // trajectories were malformed, is dropped.
  int max_tries = 3;
};

// One group of an order: `base` has every field of the lease but lease_id,
// step, group, samples, attempt and purpose.
struct GroupOrder {
  v1::Lease base;
  v1::Task task;
  uint32_t samples = 1;
  // Why the task is not played any more, "task: MESSAGE": its samples are
  // dropped at once. Empty: it is played.
  std::string set_aside = "";
};

// A sample that was given up.
struct DroppedSample {
  WorkId id;
  std::string reason;  // "KIND: MESSAGE" of an error
  std::string error;   // its kind; empty when the trajectory was malformed
};

// What became of an order.
struct OrderResult {
  std::vector<v1::Trajectory> trajectories;  // canonical order
  std::vector<DroppedSample> dropped;
};

// What to do with a submitted trajectory.
struct Admission {
  v1::SubmitReply::Verdict verdict = v1::SubmitReply::VERDICT_UNSPECIFIED;
  std::string problem;  // of REJECTED
  // Set when ACCEPTED: the sample is reserved until Accept, Reject or Release.
  WorkId id;
  std::shared_ptr<const GroupOrder> order;
  // It is kept: a result, or the error that its sample is dropped with. False
  // for an error after which the sample is played again.
  bool keep = true;
};

// Hands the work of open orders to rollout workers and collects it: the state
// machine behind the Work stream and Submit. It does no I/O, never blocks
// except in Wait, and knows neither threads nor gRPC: a session is told by its
// `wake` callback (called without locks held) that TakeOutbox has messages.
//
// Every sample of an order is in exactly one state: pending, leased, reserved
// (being stored), done or dropped. A lease that comes back makes its samples
// pending with attempt + 1; only the newest attempt is accepted. Thread-safe.
class Coordinator {
 public:
  using SessionId = uint64_t;

  // `clock` is not owned.
  Coordinator(CoordinatorOptions options, Clock* clock);

  // --- Workers.
  // A worker's stream begins. An earlier session of the same process, or one of
  // the same name whose stream broke, ends, and its leases pass to the new one;
  // nothing is granted before the first Beat has said which of them the worker
  // still plays. FAILED_PRECONDITION, naming the first difference, when the
  // worker's settings or model are not the run's, and when another process of
  // its name lives; UNAVAILABLE while that one may be gone.
  absl::StatusOr<SessionId> Connect(const v1::Hello& hello,
                                    std::function<void()> wake);
  // What the worker works on. A lease that it named before, or took over, and
  // names no more is given out again.
  void Beat(SessionId session, const v1::Beat& beat);
  // The worker leaves, or cannot reach something; a person is told once of a
  // reason for which work goes back and forth.
  void Return(SessionId session, const v1::ReturnLease& message);
  // The stream broke; leases come back after the grace.
  void Disconnect(SessionId session);
  // Messages for the worker, in order; nothing when the session is over
  // (replaced, or given up as silent) and its stream should end.
  std::optional<std::vector<v1::CoordinatorMessage>> TakeOutbox(
      SessionId session);
  // Lets time pass: grace, silence and back-off end here. Call it a few times
  // a second.
  void Tick();

  // --- Trajectories. What belongs to work that was taken by Wait is a
  // DUPLICATE or, once later work of its purpose was taken, too, SUPERSEDED.
  // Admit reserves the sample when it says ACCEPTED; the caller stores the
  // trajectory and then calls exactly one of the others.
  Admission Admit(const v1::Trajectory& trajectory);
  // A result; an error makes the sample pending again or, with the last try,
  // dropped.
  void Accept(const WorkId& id, v1::Trajectory trajectory);
  // It was malformed: the work is given out again, in the end dropped.
  void Reject(const WorkId& id, const std::string& reason);
  // It could not be stored: the work is given out again.
  void Release(const WorkId& id);

  // --- The run.
  // Newest weights; told to workers that join.
  void Announce(const v1::WeightVersion& version);
  // New work. ALREADY_EXISTS when (purpose, step) was opened before.
  absl::Status Open(v1::Purpose purpose, uint32_t step,
                    std::vector<GroupOrder> groups);
  // Blocks until all samples of the order are done or dropped, and takes them.
  // CANCELLED after Close.
  absl::StatusOr<OrderResult> Wait(v1::Purpose purpose, uint32_t step);
  // Tells all workers to leave and grants nothing more.
  void Drain();
  // Blocks until no worker is connected, or the time-out.
  void WaitEmpty(absl::Duration timeout);
  // Makes Wait return.
  void Close();

  struct Totals {
    uint64_t pending = 0;    // not granted
    uint64_t leased = 0;     // with a worker
    uint64_t collected = 0;  // of the open orders
    uint64_t leases = 0;
    uint64_t granted = 0, returned = 0, rejected = 0, superseded = 0,
             duplicates = 0;  // since the start
  };
  Totals totals() const;
  std::vector<v1::WorkerStatus> Workers() const;
  // Living sessions.
  int connected() const;

 private:
  enum class State { kPending, kLeased, kReserved, kDone, kDropped };
  struct Sample {
    State state = State::kPending;
    uint32_t attempt = 0;
    uint64_t lease = 0;     // when leased
    absl::Time not_before;  // when pending
    int failures = 0;
    int returns = 0;  // by workers that could not play it
    std::string dropped_because;
    std::string dropped_error;  // kind
    std::unique_ptr<v1::Trajectory> result;
  };
  struct Group {
    std::shared_ptr<const GroupOrder> order;
    std::vector<Sample> samples;
    size_t open = 0;  // samples neither done nor dropped
  };
  // The last one that was taken of each purpose keeps its samples, to tell
  // duplicates; of those before it only the key stays.
  struct Order {
    std::vector<Group> groups;
    size_t open = 0;  // groups with open samples
    bool taken = false;
  };
  using OrderKey = std::pair<v1::Purpose, uint32_t>;
  struct LeaseState {
    SessionId session = 0;
    WorkId first;  // the group
    std::vector<uint32_t> samples;
    bool named = false;  // the worker knows of it
  };
  struct Session {
    v1::Hello hello;
    std::function<void()> wake;
    std::vector<v1::CoordinatorMessage> outbox;
    uint32_t used = 0;  // samples leased
    uint32_t free_slots = 0;
    bool blocked = false;  // by its own word: it is given nothing
    v1::WeightVersion held;
    absl::Time last_heard;
    bool connected = true;
    absl::Time broken_at;
    bool took_over = false;  // leases, and has not said which it plays
    // Processes that asked for its name while it was connected, and since when.
    std::map<std::string, absl::Time> rivals;
  };
  // Wakes to call once the lock is released.
  using Wakes = std::vector<std::function<void()>>;

  // Whether no other living process has the worker's name.
  absl::Status CheckName(const v1::Hello& hello)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Send(Session& session, v1::CoordinatorMessage message, Wakes& wakes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Grants what can be granted.
  void Pump(Wakes& wakes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool GrantOne(Session& session, SessionId id, size_t most, Wakes& wakes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t CountPending(absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The lease's open samples become pending again.
  void GiveBack(uint64_t lease_id, bool back_off)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveBackAll(SessionId session) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The sample leaves its lease (done or pending by another way).
  void Detach(const WorkId& id, Sample& sample)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MakePending(Sample& sample, bool back_off)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // One more sample of the group is done or dropped.
  void CloseOne(const WorkId& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drop(const WorkId& id, Sample& sample, std::string reason,
            std::string error = "") ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether a sample that ended in `error` now is played again.
  bool PlayAgain(const Sample& sample, const v1::EpisodeError& error) const;
  Sample* Find(const WorkId& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CoordinatorOptions options_;
  Clock* const clock_;
  mutable absl::Mutex mutex_;
  std::map<OrderKey, Order> orders_ ABSL_GUARDED_BY(mutex_);
  // Orders with open samples, oldest first.
  std::vector<OrderKey> open_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, LeaseState> leases_ ABSL_GUARDED_BY(mutex_);
  std::map<SessionId, Session> sessions_ ABSL_GUARDED_BY(mutex_);
  v1::WeightVersion version_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_lease_ ABSL_GUARDED_BY(mutex_) = 1;
  SessionId next_session_ ABSL_GUARDED_BY(mutex_) = 1;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<std::string> told_ ABSL_GUARDED_BY(mutex_);  // reasons of Return
  Totals totals_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace atod::learner
