#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/queue.h"
#include "services/learner/work_id.h"

struct sqlite3;

namespace atod::learner {

// A trajectory that was accepted and stored.
struct SubmittedRow {
  WorkId id;
  uint32_t attempt = 0;
  std::string worker;
};

// Where a life of a run goes on from.
struct Continuation {
  // Training steps and evaluations up to these are done; -1: none.
  int64_t last_step = 0;
  int64_t last_eval = -1;
  // The ledger in the checkpoint, which must agree with this one on what
  // entered every update so far. Empty: not compared.
  std::string snapshot = "";
  // "RUN@STEP" when the run began as a copy of another; steps up to `fork_step`
  // are in that run's ledger.
  std::string forked_from = "";
  int64_t fork_step = 0;
};

// What has become of the work of a run. Every state has a table of its own and
// is counted by itself, so that `issued = consumed + dropped + in flight` can
// fail and a check of it means something. `issued` is never deleted from; when
// a life of the run is given up, its rows in the other tables move to
// `superseded`. One file (SQLite, WAL) on a local disk; metadata only. One
// thread writes; calls wait for it. Every call is one transaction, durable
// against power loss when it returns. Thread-safe.
class Ledger {
 public:
  // Creates the file when there is none.
  static absl::StatusOr<std::unique_ptr<Ledger>> Open(const std::string& path);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // The work exists from now on and is in flight.
  absl::Status Issue(const std::vector<WorkId>& work);
  absl::Status Submit(const std::vector<SubmittedRow>& rows);
  // The whole of one step's work: updates[u] entered update u of `step`.
  // Evaluation has one "update": what was counted.
  absl::Status Consume(uint32_t step,
                       const std::vector<std::vector<WorkId>>& updates);
  absl::Status Drop(const WorkId& id, const std::string& reason);

  // A checkpoint of `step` is in its place.
  absl::Status Saved(uint32_t step);

  // Starts a new life of the run: whatever was issued after `from` is
  // superseded, in one transaction. Returns the new incarnation; the first is
  // 1. FAILED_PRECONDITION, and nothing changed, when the snapshot disagrees.
  absl::StatusOr<uint32_t> StartIncarnation(const Continuation& from);

  // A consistent copy, while writers go on.
  absl::Status SnapshotTo(const std::string& path);

  // Of training work. `issued`, `submitted` and the states up to `in_flight`
  // are those of the surviving lineage.
  struct Counts {
    uint64_t issued = 0, submitted = 0, consumed = 0, dropped = 0,
             in_flight = 0;
    uint64_t superseded = 0;
    uint64_t issued_ever = 0;  // in all lives
  };
  absl::StatusOr<Counts> Count();

 private:
  explicit Ledger(std::string path);
  // Runs `call` on the writer thread and waits for it.
  absl::Status OnWriter(std::function<absl::Status()> call);
  // The rest runs on the writer thread.
  absl::Status OpenFile();
  absl::Status Exec(const char* sql);
  absl::Status Transaction(const std::function<absl::Status()>& fn);
  absl::Status Supersede(const Continuation& from);
  absl::Status CompareWithSnapshot(const Continuation& from);

  const std::string path_;
  sqlite3* db_ = nullptr;
  uint32_t incarnation_ = 0;
  Queue<std::function<void()>> calls_;
  std::thread writer_;  // last: uses all of the above
};

// Hash of the sorted ids that entered one gradient.
std::string DigestOf(std::vector<WorkId> ids);

}  // namespace atod::learner
