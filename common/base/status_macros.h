#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the enclosing function when `expr` is not OK.
#define ATOD_RETURN_IF_ERROR(expr)                              \
  do {                                                          \
    if (absl::Status atod_status_ = (expr); !atod_status_.ok()) \
      return atod_status_;                                      \
  } while (false)

#define ATOD_STATUS_CONCAT_INNER_(a, b) a##b
#define ATOD_STATUS_CONCAT_(a, b) ATOD_STATUS_CONCAT_INNER_(a, b)

// ATOD_ASSIGN_OR_RETURN(auto x, F()): declares or assigns x, or returns.
#define ATOD_ASSIGN_OR_RETURN(lhs, expr)                                     \
  ATOD_ASSIGN_OR_RETURN_IMPL_(ATOD_STATUS_CONCAT_(atod_statusor_, __LINE__), \
                              lhs, expr)
#define ATOD_ASSIGN_OR_RETURN_IMPL_(var, lhs, expr) \
  auto var = (expr);                                \
  if (!var.ok()) return std::move(var).status();    \
  lhs = std::move(var).value()
