#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace atod {

// The whole file; NOT_FOUND names the path.
absl::StatusOr<std::string> ReadFile(const std::string& path);

// Writes beside `path`, syncs, renames: readers see the old or the new bytes.
absl::Status WriteFileAtomic(const std::string& path, std::string_view bytes);

// mkdir -p.
absl::Status MakeDirs(const std::string& path);

// XXH3-128 of the bytes as 32 lower-case hex digits: the identity of weights,
// games, tokenizers and panels.
std::string HashHex(std::string_view bytes);

}  // namespace atod
