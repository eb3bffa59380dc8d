#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "services/learner/work_id.h"

namespace atod::learner {

inline absl::Status SqlError(sqlite3* db, const std::string& path) {
  return absl::InternalError(absl::StrCat(path, ": ", sqlite3_errmsg(db)));
}

// A prepared statement that runs once for each row of values.
class Statement {
 public:
  static absl::StatusOr<Statement> Prepare(sqlite3* db, const std::string& sql,
                                           const std::string& path) {
    Statement s(db, path);
    if (sqlite3_prepare_v2(db, sql.c_str(), -1, &s.stmt_, nullptr) != SQLITE_OK)
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
    sqlite3_bind_text(stmt_, ++bound_, v.data(), static_cast<int>(v.size()),
                      SQLITE_TRANSIENT);
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

// Prepares and runs.
inline absl::Status RunQuery(
    sqlite3* db, const std::string& sql, const std::string& path,
    const std::function<void(sqlite3_stmt*)>& row = nullptr) {
  absl::StatusOr<Statement> s = Statement::Prepare(db, sql, path);
  return s.ok() ? s->Run(row) : s.status();
}

// The first column of the first row; 0 without one.
inline absl::StatusOr<int64_t> ScalarQuery(sqlite3* db, const std::string& sql,
                                           const std::string& path) {
  int64_t value = 0;
  const absl::Status status = RunQuery(db, sql, path, [&](sqlite3_stmt* r) {
    value = sqlite3_column_int64(r, 0);
  });
  if (!status.ok()) return status;
  return value;
}

}  // namespace atod::learner
