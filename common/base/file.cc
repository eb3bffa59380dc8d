#include "common/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace atod {
namespace {

absl::Status FromErrno(const char* what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot ", what));
}

// Opens `path` so, writes, and brings it to the disk.
absl::Status WriteTo(const std::string& path, int flags,
                     absl::Span<const std::string_view> parts) {
  const int fd = open(path.c_str(), flags, 0644);
  if (fd < 0) return FromErrno(flags & O_CREAT ? "create" : "open", path);
  absl::Cleanup shut = [fd] { close(fd); };
  for (std::string_view bytes : parts) {
    while (!bytes.empty()) {
      const ssize_t n = write(fd, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FromErrno("write", path);
      bytes.remove_prefix(n);
    }
  }
  // Devices and pipes cannot be synced, and need not be.
  if (fsync(fd) != 0 && errno != EINVAL && errno != EROFS)
    return FromErrno("sync", path);
  std::move(shut).Cancel();
  return close(fd) == 0 ? absl::OkStatus() : FromErrno("close", path);
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is a folder, expected a file"));
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) return FromErrno("open", path);
  std::ostringstream out;
  out << in.rdbuf();
  if (in.bad()) return FromErrno("read", path);
  return std::move(out).str();
}

absl::Status WriteFileAtomic(const std::string& path, std::string_view bytes) {
  return WriteFileAtomic(path, absl::MakeConstSpan(&bytes, 1));
}

absl::Status WriteFileAtomic(const std::string& path,
                             absl::Span<const std::string_view> parts) {
  struct stat there;
  if (stat(path.c_str(), &there) == 0 && !S_ISREG(there.st_mode) &&
      !S_ISDIR(there.st_mode)) {
    return WriteTo(path, O_WRONLY | O_CLOEXEC, parts);
  }
  const std::string part = absl::StrCat(path, ".part.", getpid());
  const absl::Status written =
      WriteTo(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, parts);
  if (!written.ok()) {
    unlink(part.c_str());
    return written;
  }
  if (rename(part.c_str(), path.c_str()) != 0) {
    const absl::Status renamed = FromErrno("rename", part);
    unlink(part.c_str());
    return renamed;
  }
  return SyncPath(std::filesystem::absolute(path).parent_path().string());
}

absl::Status SyncPath(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FromErrno("open", path);
  const int result = fsync(fd);
  close(fd);
  return result == 0 ? absl::OkStatus() : FromErrno("sync", path);
}

absl::Status MakeDirs(const std::string& path) {
  std::error_code ec;
  std::filesystem::create_directories(path, ec);
  if (ec) {
    return absl::ErrnoToStatus(ec.value(),
                               absl::StrCat(path, ": cannot create folder"));
  }
  return absl::OkStatus();
}

std::string HashHex(std::string_view bytes) {
  const XXH128_hash_t h = XXH3_128bits(bytes.data(), bytes.size());
  return absl::StrFormat("%016x%016x", h.high64, h.low64);
}

}  // namespace atod
