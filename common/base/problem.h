#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace atod {

// What was wrong with an input. Travels in the details of a Status, so that a
// command line prints it and an RPC carries it (proto: atod.v1.Problem).
struct Problem {
  std::string file{};      // path or peer; may be empty
  std::string field{};     // dotted field, key or tensor name; may be empty
  int64_t line = 0;        // 1-based; 0 when unknown
  std::string found{};     // what was there
  std::string expected{};  // what should have been there
};

// INVALID_ARGUMENT with the one-line message
//   FILE[:LINE]: FIELD: found FOUND, expected EXPECTED
absl::Status BadInput(const Problem& problem);

// The Problem inside `status`, or one whose `found` is the message.
Problem ProblemOf(const absl::Status& status);

// `status` with its Problem's file set to `file` when it has none.
absl::Status WithFile(const absl::Status& status, std::string_view file);

}  // namespace atod
