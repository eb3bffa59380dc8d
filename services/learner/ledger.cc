#include "services/learner/ledger.h"

#include <sqlite3.h>

#include <algorithm>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "services/learner/ledger_check.h"
#include "services/learner/sqlite_statement.h"

namespace atod::learner {
namespace {

// Of the file, in PRAGMA user_version.
constexpr int kSchemaVersion = 2;

// No unique keys on purpose: a violation must be representable to be found.
constexpr char kSchema[] = R"sql(
CREATE TABLE IF NOT EXISTS incarnations(
  incarnation INTEGER, last_step INTEGER, last_eval INTEGER,
  forked_from TEXT, fork_step INTEGER);
CREATE TABLE IF NOT EXISTS issued(
  purpose INTEGER, step INTEGER, grp INTEGER, sample INTEGER,
  incarnation INTEGER);
CREATE TABLE IF NOT EXISTS in_flight(
  purpose INTEGER, step INTEGER, grp INTEGER, sample INTEGER,
  incarnation INTEGER);
CREATE TABLE IF NOT EXISTS submitted(
  purpose INTEGER, step INTEGER, grp INTEGER, sample INTEGER,
  attempt INTEGER, incarnation INTEGER, worker TEXT);
CREATE TABLE IF NOT EXISTS consumed(
  purpose INTEGER, step INTEGER, grp INTEGER, sample INTEGER,
  upd INTEGER, incarnation INTEGER);
CREATE TABLE IF NOT EXISTS dropped(
  purpose INTEGER, step INTEGER, grp INTEGER, sample INTEGER,
  reason TEXT, incarnation INTEGER);
CREATE TABLE IF NOT EXISTS superseded(
  purpose INTEGER, step INTEGER, grp INTEGER, sample INTEGER,
  incarnation INTEGER, was TEXT);
CREATE TABLE IF NOT EXISTS updates(
  step INTEGER, upd INTEGER, count INTEGER, digest TEXT, incarnation INTEGER);
CREATE TABLE IF NOT EXISTS checkpoints(step INTEGER, incarnation INTEGER);
CREATE INDEX IF NOT EXISTS in_flight_id
  ON in_flight(purpose, step, grp, sample);
)sql";

constexpr char kLand[] =
    "DELETE FROM in_flight WHERE purpose = ? AND step = ? AND grp = ? AND "
    "sample = ?";

// What a new life gives up.
constexpr char kLater[] =
    " WHERE (purpose != 2 AND step > ?) OR (purpose = 2 AND step > ?)";

}  // namespace

std::string DigestOf(std::vector<WorkId> ids) {
  std::sort(ids.begin(), ids.end());
  return HashHex(absl::StrJoin(
      ids, "\n",
      [](std::string* out, const WorkId& id) { out->append(FormatId(id)); }));
}

Ledger::Ledger(std::string path)
    : path_(std::move(path)), writer_([this] {
        while (auto call = calls_.Pop()) (*call)();
      }) {}

Ledger::~Ledger() {
  calls_.Close();
  writer_.join();
  sqlite3_close(db_);
}

absl::Status Ledger::OnWriter(std::function<absl::Status()> call) {
  absl::Status status;
  absl::Notification done;
  calls_.Push([&] {
    status = call();
    done.Notify();
  });
  done.WaitForNotification();
  return status;
}

absl::StatusOr<std::unique_ptr<Ledger>> Ledger::Open(const std::string& path) {
  std::unique_ptr<Ledger> ledger(new Ledger(path));
  ATOD_RETURN_IF_ERROR(ledger->OnWriter([&] { return ledger->OpenFile(); }));
  return ledger;
}

absl::Status Ledger::OpenFile() {
  // A pipe would make SQLite wait for ever.
  if (std::filesystem::exists(path_) &&
      !std::filesystem::is_regular_file(path_)) {
    return BadInput({.file = path_,
                     .field = "ledger",
                     .found = "no plain file",
                     .expected = "the ledger of a run"});
  }
  if (sqlite3_open(path_.c_str(), &db_) != SQLITE_OK)
    return SqlError(db_, path_);
  sqlite3_busy_timeout(db_, 10'000);
  ATOD_RETURN_IF_ERROR(Exec("PRAGMA journal_mode = WAL"));
  // Commits reach the disk: what was acknowledged survives power loss.
  ATOD_RETURN_IF_ERROR(Exec("PRAGMA synchronous = FULL"));
  ATOD_ASSIGN_OR_RETURN(
      const int64_t tables,
      ScalarQuery(db_, "SELECT count(*) FROM sqlite_master", path_));
  ATOD_ASSIGN_OR_RETURN(const int64_t version,
                        ScalarQuery(db_, "PRAGMA user_version", path_));
  if (tables > 0 && version != kSchemaVersion) {
    return BadInput(
        {.file = path_,
         .field = "user_version",
         .found = absl::StrCat(version),
         .expected = absl::StrCat(kSchemaVersion, ", a ledger of this build")});
  }
  ATOD_RETURN_IF_ERROR(Exec(kSchema));
  ATOD_RETURN_IF_ERROR(
      Exec(absl::StrCat("PRAGMA user_version = ", kSchemaVersion).c_str()));
  ATOD_ASSIGN_OR_RETURN(
      incarnation_,
      ScalarQuery(db_, "SELECT max(incarnation) FROM incarnations", path_));
  return absl::OkStatus();
}

absl::Status Ledger::Exec(const char* sql) {
  return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK
             ? absl::OkStatus()
             : SqlError(db_, path_);
}

absl::Status Ledger::Transaction(const std::function<absl::Status()>& fn) {
  return OnWriter([&] {
    ATOD_RETURN_IF_ERROR(Exec("BEGIN IMMEDIATE"));
    absl::Status status = fn();
    if (status.ok()) status = Exec("COMMIT");
    if (!status.ok()) Exec("ROLLBACK").IgnoreError();
    return status;
  });
}

absl::Status Ledger::Issue(const std::vector<WorkId>& work) {
  return Transaction([&] {
    ATOD_ASSIGN_OR_RETURN(
        Statement issue,
        Statement::Prepare(db_, "INSERT INTO issued VALUES (?,?,?,?,?)",
                           path_));
    ATOD_ASSIGN_OR_RETURN(
        Statement fly,
        Statement::Prepare(db_, "INSERT INTO in_flight VALUES (?,?,?,?,?)",
                           path_));
    for (const WorkId& id : work) {
      ATOD_RETURN_IF_ERROR(issue.Bind(id).Bind(incarnation_).Run());
      ATOD_RETURN_IF_ERROR(fly.Bind(id).Bind(incarnation_).Run());
    }
    return absl::OkStatus();
  });
}

absl::Status Ledger::Submit(const std::vector<SubmittedRow>& rows) {
  return Transaction([&] {
    ATOD_ASSIGN_OR_RETURN(
        Statement insert,
        Statement::Prepare(db_, "INSERT INTO submitted VALUES (?,?,?,?,?,?,?)",
                           path_));
    for (const SubmittedRow& r : rows) {
      ATOD_RETURN_IF_ERROR(insert.Bind(r.id)
                               .Bind(r.attempt)
                               .Bind(incarnation_)
                               .Bind(r.worker)
                               .Run());
    }
    return absl::OkStatus();
  });
}

absl::Status Ledger::Consume(uint32_t step,
                             const std::vector<std::vector<WorkId>>& updates) {
  return Transaction([&] {
    ATOD_ASSIGN_OR_RETURN(
        Statement consume,
        Statement::Prepare(db_, "INSERT INTO consumed VALUES (?,?,?,?,?,?)",
                           path_));
    ATOD_ASSIGN_OR_RETURN(Statement land,
                          Statement::Prepare(db_, kLand, path_));
    ATOD_ASSIGN_OR_RETURN(
        Statement update,
        Statement::Prepare(db_, "INSERT INTO updates VALUES (?,?,?,?,?)",
                           path_));
    for (size_t u = 0; u < updates.size(); ++u) {
      for (const WorkId& id : updates[u]) {
        ATOD_RETURN_IF_ERROR(consume.Bind(id).Bind(u).Bind(incarnation_).Run());
        ATOD_RETURN_IF_ERROR(land.Bind(id).Run());
      }
      if (!updates[u].empty() && updates[u][0].purpose == v1::EVAL) continue;
      ATOD_RETURN_IF_ERROR(update.Bind(step)
                               .Bind(u)
                               .Bind(updates[u].size())
                               .Bind(DigestOf(updates[u]))
                               .Bind(incarnation_)
                               .Run());
    }
    return absl::OkStatus();
  });
}

absl::Status Ledger::Drop(const WorkId& id, const std::string& reason) {
  return Transaction([&] {
    ATOD_ASSIGN_OR_RETURN(
        Statement drop,
        Statement::Prepare(db_, "INSERT INTO dropped VALUES (?,?,?,?,?,?)",
                           path_));
    ATOD_RETURN_IF_ERROR(drop.Bind(id).Bind(reason).Bind(incarnation_).Run());
    ATOD_ASSIGN_OR_RETURN(Statement land,
                          Statement::Prepare(db_, kLand, path_));
    return land.Bind(id).Run();
  });
}

absl::Status Ledger::Saved(uint32_t step) {
  return Transaction([&] {
    ATOD_ASSIGN_OR_RETURN(
        Statement saved,
        Statement::Prepare(db_, "INSERT INTO checkpoints VALUES (?,?)", path_));
    return saved.Bind(step).Bind(incarnation_).Run();
  });
}

absl::StatusOr<uint32_t> Ledger::StartIncarnation(const Continuation& from) {
  // A database cannot be attached inside a transaction.
  if (!from.snapshot.empty()) {
    ATOD_RETURN_IF_ERROR(OnWriter([&] {
      ATOD_ASSIGN_OR_RETURN(
          Statement attach,
          Statement::Prepare(db_, "ATTACH ? AS snapshot", path_));
      return attach.Bind(from.snapshot).Run();
    }));
  }
  const absl::Cleanup detach = [&] {
    if (from.snapshot.empty()) return;
    OnWriter([&] { return Exec("DETACH snapshot"); }).IgnoreError();
  };
  ATOD_RETURN_IF_ERROR(Transaction([&] {
    ATOD_RETURN_IF_ERROR(Supersede(from));
    if (!from.snapshot.empty()) ATOD_RETURN_IF_ERROR(CompareWithSnapshot(from));
    ATOD_ASSIGN_OR_RETURN(
        Statement begin,
        Statement::Prepare(db_, "INSERT INTO incarnations VALUES (?,?,?,?,?)",
                           path_));
    ATOD_RETURN_IF_ERROR(begin.Bind(incarnation_ + 1)
                             .Bind(from.last_step)
                             .Bind(from.last_eval)
                             .Bind(from.forked_from)
                             .Bind(from.fork_step)
                             .Run());
    return absl::OkStatus();
  }));
  OnWriter([this] {
    ++incarnation_;
    return absl::OkStatus();
  }).IgnoreError();
  return incarnation_;
}

absl::Status Ledger::Supersede(const Continuation& from) {
  // From the tables of the states, not from `issued`: the sum over all states
  // says whether something got lost on the way.
  for (const char* state : {"in_flight", "consumed", "dropped"}) {
    ATOD_ASSIGN_OR_RETURN(
        Statement move,
        Statement::Prepare(
            db_,
            absl::StrCat("INSERT INTO superseded SELECT purpose, step, grp, "
                         "sample, incarnation, '",
                         state, "' FROM ", state, kLater),
            path_));
    ATOD_RETURN_IF_ERROR(move.Bind(from.last_step).Bind(from.last_eval).Run());
  }
  for (const char* table : {"in_flight", "submitted", "consumed", "dropped"}) {
    ATOD_ASSIGN_OR_RETURN(
        Statement forget,
        Statement::Prepare(db_, absl::StrCat("DELETE FROM ", table, kLater),
                           path_));
    ATOD_RETURN_IF_ERROR(
        forget.Bind(from.last_step).Bind(from.last_eval).Run());
  }
  ATOD_ASSIGN_OR_RETURN(
      Statement forget,
      Statement::Prepare(db_, "DELETE FROM updates WHERE step > ?", path_));
  return forget.Bind(from.last_step).Run();
}

absl::Status Ledger::CompareWithSnapshot(const Continuation& from) {
  for (const auto& [have, lack] :
       {std::pair{"main", "snapshot"}, std::pair{"snapshot", "main"}}) {
    int64_t step = -1;
    ATOD_ASSIGN_OR_RETURN(
        Statement differ,
        Statement::Prepare(
            db_,
            absl::StrCat("SELECT step, upd, count, digest FROM ", have,
                         ".updates WHERE step > ? EXCEPT SELECT step, upd, "
                         "count, digest FROM ",
                         lack, ".updates ORDER BY step"),
            path_));
    ATOD_RETURN_IF_ERROR(
        differ.Bind(from.fork_step).Run([&](sqlite3_stmt* row) {
          if (step < 0) step = sqlite3_column_int64(row, 0);
        }));
    if (step >= 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          path_, ": updates of step ", step,
          ": found other trajectories than in the checkpoint, expected the "
          "same as in ",
          from.snapshot));
    }
  }
  return absl::OkStatus();
}

absl::Status Ledger::SnapshotTo(const std::string& path) {
  return OnWriter([&]() -> absl::Status {
    sqlite3* copy = nullptr;
    const absl::Cleanup close = [&] { sqlite3_close(copy); };
    if (sqlite3_open(path.c_str(), &copy) != SQLITE_OK)
      return SqlError(copy, path);
    sqlite3_backup* backup = sqlite3_backup_init(copy, "main", db_, "main");
    if (backup == nullptr) return SqlError(copy, path);
    sqlite3_backup_step(backup, -1);
    if (sqlite3_backup_finish(backup) != SQLITE_OK) return SqlError(copy, path);
    // A plain file without side files.
    if (sqlite3_exec(copy, "PRAGMA journal_mode = DELETE", nullptr, nullptr,
                     nullptr) != SQLITE_OK) {
      return SqlError(copy, path);
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<Ledger::Counts> Ledger::Count() {
  absl::StatusOr<Counts> counts = absl::UnknownError("");
  ATOD_RETURN_IF_ERROR(OnWriter([&] {
    counts = CountLedger(db_, path_);
    return counts.status();
  }));
  return counts;
}

}  // namespace atod::learner
