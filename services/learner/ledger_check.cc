#include "services/learner/ledger_check.h"

#include <sqlite3.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <tuple>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "services/learner/sqlite_statement.h"
#include "services/learner/trajectory_store.h"

namespace atod::learner {
namespace {

// Which work survived all lives so far, from the points where they went on.
class Lineage {
 public:
  static absl::StatusOr<Lineage> Read(sqlite3* db, const std::string& path) {
    Lineage out;
    ATOD_RETURN_IF_ERROR(RunQuery(
        db, "SELECT incarnation, last_step, last_eval FROM incarnations", path,
        [&](sqlite3_stmt* row) {
          out.lives_.push_back({sqlite3_column_int64(row, 0),
                                sqlite3_column_int64(row, 1),
                                sqlite3_column_int64(row, 2)});
        }));
    return out;
  }
  bool Has(int64_t incarnation, v1::Purpose purpose, int64_t step) const {
    return std::none_of(lives_.begin(), lives_.end(), [&](const Life& life) {
      return life.incarnation > incarnation &&
             step > (purpose == v1::EVAL ? life.last_eval : life.last_step);
    });
  }
  uint32_t incarnation() const {
    int64_t newest = 0;
    for (const Life& life : lives_) newest = std::max(newest, life.incarnation);
    return static_cast<uint32_t>(newest);
  }

 private:
  struct Life {
    int64_t incarnation, last_step, last_eval;
  };
  std::vector<Life> lives_;
};

struct Submitted {
  WorkId id;
  int64_t attempt, incarnation;
  auto operator<=>(const Submitted&) const = default;
};

// An open ledger file within one read transaction, so that a running learner
// does not move the counts apart.
class Reader {
 public:
  static absl::StatusOr<std::unique_ptr<Reader>> Open(const std::string& path) {
    // A pipe or socket would make SQLite wait for ever.
    if (!std::filesystem::is_regular_file(path)) {
      return BadInput(
          {.file = path,
           .field = "ledger",
           .found = std::filesystem::exists(path) ? "no plain file" : "no file",
           .expected = "the ledger of a run"});
    }
    std::unique_ptr<Reader> reader(new Reader(path));
    sqlite3*& db = reader->db_;
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
    if (sqlite3_exec(db, "BEGIN", nullptr, nullptr, nullptr) != SQLITE_OK)
      return SqlError(db, path);
    return reader;
  }
  ~Reader() { sqlite3_close(db_); }

  absl::StatusOr<bool> HasWork() {
    ATOD_ASSIGN_OR_RETURN(
        const int64_t issued,
        ScalarQuery(db_, "SELECT count(*) FROM issued", path_));
    return issued > 0;
  }
  absl::StatusOr<std::optional<uint32_t>> LastSaved() {
    // Older ledgers do not have the table.
    ATOD_ASSIGN_OR_RETURN(
        const int64_t has,
        ScalarQuery(
            db_, "SELECT count(*) FROM sqlite_master WHERE name='checkpoints'",
            path_));
    ATOD_ASSIGN_OR_RETURN(
        const int64_t last,
        ScalarQuery(
            db_,
            absl::StrCat("SELECT ifnull(max(step), -1) FROM (SELECT last_step "
                         "AS step FROM incarnations WHERE last_step > 0",
                         has > 0 ? " UNION SELECT step FROM checkpoints" : "",
                         ")"),
            path_));
    if (last < 0) return std::nullopt;
    return static_cast<uint32_t>(last);
  }
  absl::StatusOr<LedgerReport> Check();
  const std::vector<Submitted>& submitted() const { return submitted_; }

 private:
  struct Seen {  // of the lineage, by id
    int issued = 0, in_flight = 0, submitted = 0, consumed = 0, dropped = 0;
  };
  struct GivenUp {  // by life and id
    int issued = 0, superseded = 0;
  };

  explicit Reader(std::string path) : path_(std::move(path)) {}
  absl::Status ReadRows(const std::string& table, int Seen::*count);
  absl::Status CheckDigests(LedgerReport& report);
  void CheckIds(LedgerReport& report) const;

  const std::string path_;
  sqlite3* db_ = nullptr;
  Lineage lineage_;
  std::map<WorkId, Seen> seen_;
  std::map<std::pair<int64_t, WorkId>, GivenUp> given_up_;
  std::map<std::pair<uint32_t, uint32_t>, std::vector<WorkId>> consumed_;
  std::vector<Submitted> submitted_;
};

WorkId IdAt(sqlite3_stmt* row) {
  return {static_cast<v1::Purpose>(sqlite3_column_int(row, 0)),
          static_cast<uint32_t>(sqlite3_column_int64(row, 1)),
          static_cast<uint32_t>(sqlite3_column_int64(row, 2)),
          static_cast<uint32_t>(sqlite3_column_int64(row, 3))};
}

absl::Status Reader::ReadRows(const std::string& table, int Seen::*count) {
  const bool consumed = table == "consumed", submitted = table == "submitted";
  return RunQuery(
      db_,
      absl::StrCat("SELECT purpose, step, grp, sample, incarnation, ",
                   consumed    ? "upd"
                   : submitted ? "attempt"
                               : "0",
                   " FROM ", table),
      path_, [&](sqlite3_stmt* row) {
        const WorkId id = IdAt(row);
        const int64_t life = sqlite3_column_int64(row, 4);
        const int64_t extra = sqlite3_column_int64(row, 5);
        // Rows of a life that was given up count only as issued.
        if (count == &Seen::issued &&
            !lineage_.Has(life, id.purpose, id.step)) {
          ++given_up_[{life, id}].issued;
          return;
        }
        ++(seen_[id].*count);
        if (consumed && id.purpose == v1::TRAIN)
          consumed_[{id.step, static_cast<uint32_t>(extra)}].push_back(id);
        if (submitted) submitted_.push_back({id, extra, life});
      });
}

void Reader::CheckIds(LedgerReport& report) const {
  const auto duplicate = [&](const WorkId& id, auto... what) {
    report.duplicates.push_back(
        absl::StrCat("duplicate ", FormatId(id), ": ", what...));
  };
  const auto gap = [&](const WorkId& id, auto... what) {
    report.gaps.push_back(absl::StrCat("gap ", FormatId(id), ": ", what...));
  };
  for (const auto& [id, s] : seen_) {
    if (s.issued > 1) duplicate(id, "issued ", s.issued, " times");
    if (s.submitted > 1) duplicate(id, "submitted ", s.submitted, " times");
    if (s.consumed > 1) duplicate(id, "consumed ", s.consumed, " times");
    const int ends = (s.consumed > 0) + (s.dropped > 0) + (s.in_flight > 0);
    if (ends > 1 || s.dropped > 1 || s.in_flight > 1) {
      duplicate(id, "consumed ", s.consumed, ", dropped ", s.dropped,
                ", in flight ", s.in_flight);
    }
    if (s.issued == 0) gap(id, "never issued, yet accounted for");
    if (s.consumed > 0 && s.submitted == 0)
      gap(id, "consumed, but never submitted");
    if (s.issued > 0 && ends == 0)
      gap(id, "issued, but neither consumed, dropped nor in flight");
  }
  for (const auto& [key, g] : given_up_) {
    const auto& [life, id] = key;
    if (g.issued > 1 || g.superseded > 1) {
      duplicate(id, "life ", life, " issued it ", g.issued,
                " times, superseded ", g.superseded, " times");
    }
    if (g.superseded == 0)
      gap(id, "issued by life ", life, " and given up, but not superseded");
    if (g.issued == 0)
      gap(id, "superseded in life ", life, ", which is not given up");
  }
}

absl::Status Reader::CheckDigests(LedgerReport& report) {
  struct Update {
    uint32_t step, index;
    int64_t count;
    std::string digest;
  };
  std::vector<Update> updates;
  ATOD_RETURN_IF_ERROR(RunQuery(
      db_, "SELECT step, upd, count, digest FROM updates", path_,
      [&](sqlite3_stmt* row) {
        const auto* digest =
            reinterpret_cast<const char*>(sqlite3_column_text(row, 3));
        updates.push_back({static_cast<uint32_t>(sqlite3_column_int64(row, 0)),
                           static_cast<uint32_t>(sqlite3_column_int64(row, 1)),
                           sqlite3_column_int64(row, 2),
                           digest == nullptr ? "nothing" : digest});
      }));
  report.updates = updates.size();
  for (const Update& update : updates) {
    const auto node = consumed_.extract({update.step, update.index});
    const std::vector<WorkId> ids =
        node.empty() ? std::vector<WorkId>() : node.mapped();
    const std::string digest = DigestOf(ids);
    if (digest == update.digest &&
        static_cast<int64_t>(ids.size()) == update.count) {
      continue;
    }
    report.digests.push_back(absl::StrCat(
        "digest ", update.step, ", update ", update.index, ": found ",
        update.digest, " of ", update.count, " trajectories, expected ", digest,
        " of the ", ids.size(), " consumed"));
  }
  for (const auto& [key, ids] : consumed_) {
    report.digests.push_back(absl::StrCat("digest ", key.first, ", update ",
                                          key.second,
                                          ": found none, or two, "
                                          "expected one of the ",
                                          ids.size(), " consumed"));
  }
  return absl::OkStatus();
}

absl::StatusOr<LedgerReport> Reader::Check() {
  LedgerReport report;
  ATOD_ASSIGN_OR_RETURN(lineage_, Lineage::Read(db_, path_));
  report.incarnation = lineage_.incarnation();
  ATOD_RETURN_IF_ERROR(RunQuery(
      db_, "SELECT forked_from FROM incarnations WHERE forked_from != ''",
      path_, [&](sqlite3_stmt* row) {
        report.forked_from =
            reinterpret_cast<const char*>(sqlite3_column_text(row, 0));
      }));
  ATOD_ASSIGN_OR_RETURN(report.counts, CountLedger(db_, path_));
  ATOD_RETURN_IF_ERROR(ReadRows("issued", &Seen::issued));
  ATOD_RETURN_IF_ERROR(ReadRows("in_flight", &Seen::in_flight));
  ATOD_RETURN_IF_ERROR(ReadRows("submitted", &Seen::submitted));
  ATOD_RETURN_IF_ERROR(ReadRows("consumed", &Seen::consumed));
  ATOD_RETURN_IF_ERROR(ReadRows("dropped", &Seen::dropped));
  ATOD_RETURN_IF_ERROR(RunQuery(
      db_, "SELECT purpose, step, grp, sample, incarnation FROM superseded",
      path_, [&](sqlite3_stmt* row) {
        ++given_up_[{sqlite3_column_int64(row, 4), IdAt(row)}].superseded;
      }));
  CheckIds(report);
  ATOD_RETURN_IF_ERROR(CheckDigests(report));
  return report;
}

absl::StatusOr<std::unique_ptr<Reader>> OpenAndCheck(const std::string& path,
                                                     LedgerReport* report) {
  const auto bad = [&](const absl::Status& s) {
    if (absl::IsInvalidArgument(s)) return s;
    const absl::string_view why = s.message();
    return BadInput({.file = path,
                     .field = "ledger",
                     .found = std::string(absl::StripPrefix(why, path + ": ")),
                     .expected = "the ledger of a run"});
  };
  absl::StatusOr<std::unique_ptr<Reader>> reader = Reader::Open(path);
  if (!reader.ok()) return bad(reader.status());
  absl::StatusOr<LedgerReport> checked = (*reader)->Check();
  if (!checked.ok()) return bad(checked.status());
  *report = *std::move(checked);
  return reader;
}

}  // namespace

absl::StatusOr<Ledger::Counts> CountLedger(sqlite3* db,
                                           const std::string& path) {
  Ledger::Counts c;
  const std::pair<const char*, uint64_t*> tables[] = {
      {"submitted", &c.submitted},   {"consumed", &c.consumed},
      {"dropped", &c.dropped},       {"in_flight", &c.in_flight},
      {"superseded", &c.superseded}, {"issued", &c.issued_ever}};
  for (const auto& [table, out] : tables) {
    ATOD_ASSIGN_OR_RETURN(const int64_t n,
                          ScalarQuery(db,
                                      absl::StrCat("SELECT count(*) FROM ",
                                                   table, " WHERE purpose = 1"),
                                      path));
    *out = n;
  }
  ATOD_ASSIGN_OR_RETURN(const Lineage lineage, Lineage::Read(db, path));
  ATOD_RETURN_IF_ERROR(RunQuery(
      db,
      "SELECT incarnation, step, count(*) FROM issued WHERE purpose = 1 GROUP "
      "BY incarnation, step",
      path, [&](sqlite3_stmt* row) {
        if (lineage.Has(sqlite3_column_int64(row, 0), v1::TRAIN,
                        sqlite3_column_int64(row, 1)))
          c.issued += sqlite3_column_int64(row, 2);
      }));
  return c;
}

absl::StatusOr<bool> HasWork(const std::string& path) {
  ATOD_ASSIGN_OR_RETURN(const auto reader, Reader::Open(path));
  return reader->HasWork();
}

absl::StatusOr<std::optional<uint32_t>> LastSaved(const std::string& path) {
  ATOD_ASSIGN_OR_RETURN(const auto reader, Reader::Open(path));
  return reader->LastSaved();
}

absl::StatusOr<LedgerReport> CheckLedger(const std::string& path) {
  LedgerReport report;
  ATOD_RETURN_IF_ERROR(OpenAndCheck(path, &report).status());
  return report;
}

absl::StatusOr<LedgerReport> CheckRun(const RunFolder& run) {
  LedgerReport report;
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Reader> reader,
                        OpenAndCheck(run.ledger(), &report));
  // File by file: what it should hold, then what it holds.
  std::map<std::string, std::vector<Submitted>> files;
  for (const Submitted& s : reader->submitted())
    files[TrajectoryFile(run.spool(), s.id.purpose, s.id.step)].push_back(s);
  for (const auto& [path, expected] : files) {
    std::set<Submitted> found;
    const absl::Status read = ReadTrajectories(path, [&](v1::Trajectory t) {
      found.insert({IdOf(t), t.id().attempt(), t.incarnation()});
    });
    if (!read.ok())
      report.missing.push_back(
          absl::StrCat("payload: ", std::string(read.message())));
    for (const Submitted& s : expected) {
      if (found.contains(s)) {
        ++report.payloads;
      } else {
        report.missing.push_back(absl::StrCat(
            "payload ", FormatId(s.id), ": found no frame of attempt ",
            s.attempt, " and life ", s.incarnation, " in ", path));
      }
    }
  }
  return report;
}

}  // namespace atod::learner
