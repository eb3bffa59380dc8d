#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace atod {

// The type of the file system that holds `path` (absolute, without links), as
// `mountinfo` (the text of /proc/self/mountinfo) says; empty when it does not.
std::string FileSystemType(const std::string& path, std::string_view mountinfo);

// FAILED_PRECONDITION when `type` is a network file system, whose locks and
// syncs a ledger cannot rely on.
absl::Status RefuseNetworkType(const std::string& path,
                               const std::string& type);

// The two together for a folder of this machine, there already or not.
absl::Status RequireLocalDisk(const std::string& path);

}  // namespace atod
