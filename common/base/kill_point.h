#pragma once

#include <string_view>

namespace atod {

// Transitions of a run at which a test can kill a process (tests/chaos).
enum class KillLabel {
  // Learner.
  kIncarnationStarted,     // a new life is in the ledger, nothing else
  kLeaseGranted,           // not yet told to the worker
  kSubmitReceived,         // nothing kept
  kSpoolWritten,           // on the disk, not in the ledger
  kLedgerCommitted,        // not acknowledged
  kGroupComplete,          // its last trajectory is accepted
  kUpdateDone,             // weights changed in memory
  kStepConsumed,           // the ledger says what was trained on
  kVersionPublished,       // announced to the workers
  kStepRecorded,           // in metrics.jsonl
  kCheckpointDataWritten,  // without its manifest
  kManifestRenamed,        // in place, `last` points at the one before
  // Rollout worker.
  kSwapInstalled,  // new weights are in the engine, the learner not told
};

inline constexpr std::string_view kKillLabels[] = {
    "incarnation-started", "lease-granted",           "submit-received",
    "spool-written",       "ledger-committed",        "group-complete",
    "update-done",         "step-consumed",           "version-published",
    "step-recorded",       "checkpoint-data-written", "manifest-renamed",
    "swap-installed",
};

// Marks that the process passes `label`. Does nothing: the programs that people
// run link an empty function. Those of tests/chaos link one that obeys
// ATOD_KILL_AT=LABEL:N.
void KillPoint(KillLabel label);

}  // namespace atod
