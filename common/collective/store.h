#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "c10/util/intrusive_ptr.h"
#include "common/collective/communicator.h"
#include "torch/csrc/distributed/c10d/Store.hpp"

namespace atod::collective {

// Where the ranks of a group find each other. Rank 0 listens on
// store_host:store_port, that address alone, and must outlive the others' use
// of the store. UNAVAILABLE names the address when the ranks do not meet in
// time.
absl::StatusOr<c10::intrusive_ptr<c10d::Store>> OpenStore(
    const CommunicatorOptions& options);

absl::Status CheckRanks(const CommunicatorOptions& options);

// Runs `body`, which returns a Status, and turns what torch throws into
// UNAVAILABLE with the first line of its message.
template <typename Body>
absl::Status Guarded(const char* what, Body body) {
  try {
    return body();
  } catch (const std::exception& e) {
    const std::string text = e.what();
    return absl::UnavailableError(
        absl::StrCat(what, ": ", text.substr(0, text.find('\n'))));
  }
}

}  // namespace atod::collective
