#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace atod {

// The whole file; NOT_FOUND names the path.
absl::StatusOr<std::string> ReadFile(const std::string& path);

// Writes beside `path`, syncs, renames: readers see the old or the new bytes,
// also after a power failure. A device or pipe at `path` is written to as it
// is.
absl::Status WriteFileAtomic(const std::string& path, std::string_view bytes);
// The same for bytes that lie in several places.
absl::Status WriteFileAtomic(const std::string& path,
                             absl::Span<const std::string_view> parts);

// Brings a file, or the entries of a folder, to the disk.
absl::Status SyncPath(const std::string& path);

// mkdir -p.
absl::Status MakeDirs(const std::string& path);

// XXH3-128 of the bytes as 32 lower-case hex digits: the identity of weights,
// games, tokenizers and panels.
std::string HashHex(std::string_view bytes);

}  // namespace atod
