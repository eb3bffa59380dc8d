#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/run/run_folder.h"
#include "services/learner/ledger.h"

struct sqlite3;

namespace atod::learner {

// Whether a ledger's file has any work in it, of whatever life.
absl::StatusOr<bool> HasWork(const std::string& path);

// The newest step of which the run ever had a checkpoint: it saved it, or went
// on from it.
absl::StatusOr<std::optional<uint32_t>> LastSaved(const std::string& path);

// What a run's files say when everything is counted anew.
struct LedgerReport {
  Ledger::Counts counts;     // training work
  uint32_t incarnation = 0;  // lives so far
  std::string forked_from;   // "RUN@STEP", or nothing
  uint64_t updates = 0;      // whose digest was computed again
  uint64_t payloads = 0;     // found in the spool, whole
  // One line each: "duplicate 3/0/1: consumed 2 times", "gap 3/0/2: …",
  // "digest 3, update 1: …", "payload 3/0/1: …".
  std::vector<std::string> duplicates, gaps, digests, missing;

  bool ok() const {
    return counts.issued ==
               counts.consumed + counts.dropped + counts.in_flight &&
           counts.issued_ever == counts.consumed + counts.dropped +
                                     counts.in_flight + counts.superseded &&
           duplicates.empty() && gaps.empty() && digests.empty() &&
           missing.empty();
  }
};

// Of a ledger file, read-only, whether or not a learner has it open: counts
// from the tables, every id by itself, digests from the consumed rows.
absl::StatusOr<LedgerReport> CheckLedger(const std::string& path);

// The same for a run, and every payload that the ledger names: there,
// with its checksum, in the spool.
absl::StatusOr<LedgerReport> CheckRun(const RunFolder& run);

// Counts on an open ledger file.
absl::StatusOr<Ledger::Counts> CountLedger(sqlite3* db,
                                           const std::string& path);

}  // namespace atod::learner
