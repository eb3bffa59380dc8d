#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

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

// A folder that one process owns, by a lock that ends with the process however
// it dies.
class FolderLock {
 public:
  // FAILED_PRECONDITION when another process has it.
  static absl::StatusOr<std::unique_ptr<FolderLock>> Take(
      const std::string& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace atod
