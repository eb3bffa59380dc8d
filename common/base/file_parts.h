#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace atod {

// The bytes of part i, valid until the next call.
using FilePart = std::function<absl::StatusOr<std::string_view>(size_t i)>;

// WriteFileAtomic of file.h for bytes that are made while the file is written.
// An error of `part` is returned and leaves the file at `path` as it was.
absl::Status WriteFileAtomic(const std::string& path, size_t parts,
                             const FilePart& part);

}  // namespace atod
