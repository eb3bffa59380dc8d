#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/learner/work_id.h"

struct sqlite3;

namespace atod::learner {

// A trajectory that was accepted and stored.
struct SubmittedRow {
  WorkId id;
  uint32_t attempt = 0;
  std::string worker;
};

// What has become of the work of a run. Every state has a table of its own and
// is counted by itself, so that `issued = consumed + dropped + in flight` can
// fail and a check of it means something. One file (SQLite, WAL) on a local
// disk; metadata only. Thread-safe; every call is one transaction, durable
// against the death of the process when it returns.
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

  // Starts a new life of the run that goes on after training step `last_step`
  // and the evaluation of step `last_eval` (-1: none): whatever was issued
  // later is superseded, in one transaction. Returns the new incarnation; the
  // first is 1.
  absl::StatusOr<uint32_t> StartIncarnation(int64_t last_step,
                                            int64_t last_eval);

  // A consistent copy, while writers go on.
  absl::Status SnapshotTo(const std::string& path);

  struct Counts {
    uint64_t issued = 0, submitted = 0, consumed = 0, dropped = 0,
             in_flight = 0;
  };
  // Of training work.
  absl::StatusOr<Counts> Count();

 private:
  explicit Ledger(std::string path) : path_(std::move(path)) {}
  absl::Status Exec(const char* sql) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  template <typename Fn>
  absl::Status Transaction(Fn fn) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  absl::Mutex mutex_;
  sqlite3* db_ ABSL_GUARDED_BY(mutex_) = nullptr;
  uint32_t incarnation_ ABSL_GUARDED_BY(mutex_) = 0;
};

struct LedgerReport {
  Ledger::Counts counts;  // training work
  // One line each: "duplicate 3/0/1: consumed 2 times", "gap 3/0/2: …".
  std::vector<std::string> duplicates;
  std::vector<std::string> gaps;

  bool ok() const {
    return counts.issued ==
               counts.consumed + counts.dropped + counts.in_flight &&
           duplicates.empty() && gaps.empty();
  }
};

// Recomputes everything from the file of a running or dead run, read-only.
absl::StatusOr<LedgerReport> CheckLedger(const std::string& path);

}  // namespace atod::learner
