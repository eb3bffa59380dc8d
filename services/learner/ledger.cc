#include "services/learner/ledger.h"

#include <sqlite3.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::learner {
namespace {

// No unique keys on purpose: a violation must be representable to be found.
constexpr char kSchema[] = R"sql(
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value INTEGER);
CREATE TABLE IF NOT EXISTS issued(
  purpose INTEGER, step INTEGER, grp INTEGER, sample INTEGER,
  incarnation INTEGER);
CREATE TABLE IF NOT EXISTS in_flight(
  purpose INTEGER, step INTEGER, grp INTEGER, sample INTEGER);
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
  incarnation INTEGER);
CREATE TABLE IF NOT EXISTS updates(
  step INTEGER, upd INTEGER, count INTEGER, digest TEXT, incarnation INTEGER);
CREATE INDEX IF NOT EXISTS issued_id ON issued(purpose, step, grp, sample);
CREATE INDEX IF NOT EXISTS in_flight_id
  ON in_flight(purpose, step, grp, sample);
CREATE INDEX IF NOT EXISTS consumed_id ON consumed(purpose, step, grp, sample);
)sql";

absl::Status SqlError(sqlite3* db, const std::string& path) {
  return absl::InternalError(absl::StrCat(path, ": ", sqlite3_errmsg(db)));
}

// A prepared statement that runs once for each row of values.
class Statement {
 public:
  static absl::StatusOr<Statement> Prepare(sqlite3* db, const char* sql,
                                           const std::string& path) {
    Statement s(db, path);
    if (sqlite3_prepare_v2(db, sql, -1, &s.stmt_, nullptr) != SQLITE_OK)
      return SqlError(db, path);
    return s;
  }
  Statement(Statement&& o)
      : db_(o.db_), path_(o.path_), stmt_(std::exchange(o.stmt_, nullptr)) {}
  ~Statement() { sqlite3_finalize(stmt_); }

  Statement& Bind(int64_t v) {
    sqlite3_bind_int64(stmt_, ++bound_, v);
    return *this;
  }
  Statement& Bind(const std::string& v) {
    sqlite3_bind_text(stmt_, ++bound_, v.data(), v.size(), SQLITE_TRANSIENT);
    return *this;
  }
  Statement& Bind(const WorkId& id) {
    return Bind(id.purpose).Bind(id.step).Bind(id.group).Bind(id.sample);
  }

  // Runs to the end; `row` sees each result row.
  absl::Status Run(const std::function<void(sqlite3_stmt*)>& row = nullptr) {
    int rc;
    while ((rc = sqlite3_step(stmt_)) == SQLITE_ROW)
      if (row) row(stmt_);
    sqlite3_reset(stmt_);
    bound_ = 0;
    return rc == SQLITE_DONE ? absl::OkStatus() : SqlError(db_, path_);
  }

 private:
  Statement(sqlite3* db, std::string path) : db_(db), path_(std::move(path)) {}
  sqlite3* db_;
  std::string path_;
  sqlite3_stmt* stmt_ = nullptr;
  int bound_ = 0;
};

absl::StatusOr<int64_t> ScalarQuery(sqlite3* db, const char* sql,
                                    const std::string& path) {
  ATOD_ASSIGN_OR_RETURN(Statement s, Statement::Prepare(db, sql, path));
  int64_t value = 0;
  ATOD_RETURN_IF_ERROR(
      s.Run([&](sqlite3_stmt* r) { value = sqlite3_column_int64(r, 0); }));
  return value;
}

absl::StatusOr<Ledger::Counts> CountAll(sqlite3* db, const std::string& path) {
  Ledger::Counts c;
  const std::pair<const char*, uint64_t*> columns[] = {
      {"SELECT count(*) FROM issued WHERE purpose = 1", &c.issued},
      {"SELECT count(*) FROM submitted WHERE purpose = 1", &c.submitted},
      {"SELECT count(*) FROM consumed WHERE purpose = 1", &c.consumed},
      {"SELECT count(*) FROM dropped WHERE purpose = 1", &c.dropped},
      {"SELECT count(*) FROM in_flight WHERE purpose = 1", &c.in_flight}};
  for (const auto& [sql, out] : columns) {
    ATOD_ASSIGN_OR_RETURN(const int64_t n, ScalarQuery(db, sql, path));
    *out = n;
  }
  return c;
}

// Hash of the sorted ids that entered one gradient.
std::string Digest(std::vector<WorkId> ids) {
  std::sort(ids.begin(), ids.end());
  return HashHex(absl::StrJoin(
      ids, "\n",
      [](std::string* out, const WorkId& id) { out->append(FormatId(id)); }));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Ledger>> Ledger::Open(const std::string& path) {
  std::unique_ptr<Ledger> ledger(new Ledger(path));
  absl::MutexLock lock(&ledger->mutex_);
  if (sqlite3_open(path.c_str(), &ledger->db_) != SQLITE_OK)
    return SqlError(ledger->db_, path);
  sqlite3_busy_timeout(ledger->db_, 10'000);
  ATOD_RETURN_IF_ERROR(ledger->Exec("PRAGMA journal_mode = WAL"));
  ATOD_RETURN_IF_ERROR(ledger->Exec("PRAGMA synchronous = NORMAL"));
  ATOD_RETURN_IF_ERROR(ledger->Exec(kSchema));
  ATOD_ASSIGN_OR_RETURN(
      ledger->incarnation_,
      ScalarQuery(ledger->db_,
                  "SELECT value FROM meta WHERE key = 'incarnation'", path));
  return ledger;
}

Ledger::~Ledger() {
  absl::MutexLock lock(&mutex_);
  sqlite3_close(db_);
}

absl::Status Ledger::Exec(const char* sql) {
  return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK
             ? absl::OkStatus()
             : SqlError(db_, path_);
}

template <typename Fn>
absl::Status Ledger::Transaction(Fn fn) {
  ATOD_RETURN_IF_ERROR(Exec("BEGIN IMMEDIATE"));
  absl::Status status = fn();
  if (status.ok()) status = Exec("COMMIT");
  if (!status.ok()) Exec("ROLLBACK").IgnoreError();
  return status;
}

absl::Status Ledger::Issue(const std::vector<WorkId>& work) {
  absl::MutexLock lock(&mutex_);
  return Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    ATOD_ASSIGN_OR_RETURN(
        Statement issue,
        Statement::Prepare(db_, "INSERT INTO issued VALUES (?,?,?,?,?)",
                           path_));
    ATOD_ASSIGN_OR_RETURN(
        Statement fly,
        Statement::Prepare(db_, "INSERT INTO in_flight VALUES (?,?,?,?)",
                           path_));
    for (const WorkId& id : work) {
      ATOD_RETURN_IF_ERROR(issue.Bind(id).Bind(incarnation_).Run());
      ATOD_RETURN_IF_ERROR(fly.Bind(id).Run());
    }
    return absl::OkStatus();
  });
}

absl::Status Ledger::Submit(const std::vector<SubmittedRow>& rows) {
  absl::MutexLock lock(&mutex_);
  return Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
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
  absl::MutexLock lock(&mutex_);
  return Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    ATOD_ASSIGN_OR_RETURN(
        Statement consume,
        Statement::Prepare(db_, "INSERT INTO consumed VALUES (?,?,?,?,?,?)",
                           path_));
    ATOD_ASSIGN_OR_RETURN(
        Statement land,
        Statement::Prepare(db_,
                           "DELETE FROM in_flight WHERE purpose = ? AND step "
                           "= ? AND grp = ? AND sample = ?",
                           path_));
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
                               .Bind(Digest(updates[u]))
                               .Bind(incarnation_)
                               .Run());
    }
    return absl::OkStatus();
  });
}

absl::Status Ledger::Drop(const WorkId& id, const std::string& reason) {
  absl::MutexLock lock(&mutex_);
  return Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    ATOD_ASSIGN_OR_RETURN(
        Statement drop,
        Statement::Prepare(db_, "INSERT INTO dropped VALUES (?,?,?,?,?,?)",
                           path_));
    ATOD_RETURN_IF_ERROR(drop.Bind(id).Bind(reason).Bind(incarnation_).Run());
    ATOD_ASSIGN_OR_RETURN(
        Statement land,
        Statement::Prepare(db_,
                           "DELETE FROM in_flight WHERE purpose = ? AND step "
                           "= ? AND grp = ? AND sample = ?",
                           path_));
    return land.Bind(id).Run();
  });
}

absl::StatusOr<uint32_t> Ledger::StartIncarnation(int64_t last_step,
                                                  int64_t last_eval) {
  absl::MutexLock lock(&mutex_);
  ATOD_RETURN_IF_ERROR(Transaction([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    constexpr char kLater[] =
        " WHERE (purpose != 2 AND step > ?) OR (purpose = 2 AND step > ?)";
    ATOD_ASSIGN_OR_RETURN(
        Statement supersede,
        Statement::Prepare(
            db_,
            absl::StrCat("INSERT INTO superseded SELECT purpose, step, grp, "
                         "sample, incarnation FROM issued",
                         kLater)
                .c_str(),
            path_));
    ATOD_RETURN_IF_ERROR(supersede.Bind(last_step).Bind(last_eval).Run());
    for (const char* table :
         {"issued", "in_flight", "submitted", "consumed", "dropped"}) {
      ATOD_ASSIGN_OR_RETURN(
          Statement forget,
          Statement::Prepare(
              db_, absl::StrCat("DELETE FROM ", table, kLater).c_str(), path_));
      ATOD_RETURN_IF_ERROR(forget.Bind(last_step).Bind(last_eval).Run());
    }
    ATOD_ASSIGN_OR_RETURN(
        Statement forget,
        Statement::Prepare(db_, "DELETE FROM updates WHERE step > ?", path_));
    ATOD_RETURN_IF_ERROR(forget.Bind(last_step).Run());
    ATOD_ASSIGN_OR_RETURN(
        Statement count,
        Statement::Prepare(
            db_, "INSERT OR REPLACE INTO meta VALUES ('incarnation', ?)",
            path_));
    return count.Bind(incarnation_ + 1).Run();
  }));
  return ++incarnation_;
}

absl::Status Ledger::SnapshotTo(const std::string& path) {
  absl::MutexLock lock(&mutex_);
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
}

absl::StatusOr<Ledger::Counts> Ledger::Count() {
  absl::MutexLock lock(&mutex_);
  return CountAll(db_, path_);
}

absl::StatusOr<LedgerReport> CheckLedger(const std::string& path) {
  if (!std::filesystem::exists(path)) {
    return BadInput({.file = path,
                     .field = "ledger",
                     .found = "no file",
                     .expected = "the ledger of a run"});
  }
  sqlite3* db = nullptr;
  const absl::Cleanup close = [&] { sqlite3_close(db); };
  // Journals of a dead run need a writable folder; a copy on a read-only disk
  // is opened as it lies.
  if (sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READONLY, nullptr) !=
          SQLITE_OK ||
      sqlite3_exec(db, "SELECT 1 FROM sqlite_master", nullptr, nullptr,
                   nullptr) == SQLITE_CANTOPEN) {
    sqlite3_close(db);
    db = nullptr;
    if (sqlite3_open_v2(absl::StrCat("file:", path, "?immutable=1").c_str(),
                        &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI,
                        nullptr) != SQLITE_OK) {
      return SqlError(db, path);
    }
  }
  sqlite3_busy_timeout(db, 10'000);
  const auto bad = [&](const absl::Status& s) {
    return s.ok() ? s
                  : BadInput({.file = path,
                              .field = "ledger",
                              .found = std::string(s.message()),
                              .expected = "the ledger of a run"});
  };
  // One read transaction: a running learner does not move the counts apart.
  if (sqlite3_exec(db, "BEGIN", nullptr, nullptr, nullptr) != SQLITE_OK)
    return bad(SqlError(db, path));
  LedgerReport report;
  absl::StatusOr<Ledger::Counts> counts = CountAll(db, path);
  if (!counts.ok()) return bad(counts.status());
  report.counts = *counts;

  struct Seen {
    int issued = 0, in_flight = 0, consumed = 0, dropped = 0;
  };
  std::map<WorkId, Seen> seen;
  const std::pair<const char*, int Seen::*> tables[] = {
      {"SELECT purpose, step, grp, sample FROM issued", &Seen::issued},
      {"SELECT purpose, step, grp, sample FROM in_flight", &Seen::in_flight},
      {"SELECT purpose, step, grp, sample FROM consumed", &Seen::consumed},
      {"SELECT purpose, step, grp, sample FROM dropped", &Seen::dropped}};
  for (const auto& [sql, field] : tables) {
    absl::StatusOr<Statement> s = Statement::Prepare(db, sql, path);
    if (!s.ok()) return bad(s.status());
    const absl::Status run = s->Run([&, field = field](sqlite3_stmt* row) {
      const WorkId id{static_cast<v1::Purpose>(sqlite3_column_int(row, 0)),
                      static_cast<uint32_t>(sqlite3_column_int64(row, 1)),
                      static_cast<uint32_t>(sqlite3_column_int64(row, 2)),
                      static_cast<uint32_t>(sqlite3_column_int64(row, 3))};
      ++(seen[id].*field);
    });
    if (!run.ok()) return bad(run);
  }
  for (const auto& [id, s] : seen) {
    const std::string name = FormatId(id);
    const auto fault = [&](std::vector<std::string>& list, const char* kind,
                           const std::string& what) {
      list.push_back(absl::StrCat(kind, " ", name, ": ", what));
    };
    if (s.issued > 1)
      fault(report.duplicates, "duplicate",
            absl::StrCat("issued ", s.issued, " times"));
    if (s.consumed > 1)
      fault(report.duplicates, "duplicate",
            absl::StrCat("consumed ", s.consumed, " times"));
    const int ends = (s.consumed > 0) + (s.dropped > 0) + (s.in_flight > 0);
    if (ends > 1 || s.dropped > 1 || s.in_flight > 1)
      fault(report.duplicates, "duplicate",
            absl::StrCat("consumed ", s.consumed, ", dropped ", s.dropped,
                         ", in flight ", s.in_flight));
    if (s.issued == 0)
      fault(report.gaps, "gap", "never issued, yet accounted for");
    if (s.issued > 0 && ends == 0)
      fault(report.gaps, "gap",
            "issued, but neither consumed, dropped nor in flight");
  }
  return report;
}

}  // namespace atod::learner
