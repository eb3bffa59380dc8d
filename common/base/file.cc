#include "common/base/file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/file_parts.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod {
namespace {

// Of what is no regular file, such as /dev/zero.
constexpr size_t kLongestStream = size_t{1} << 30;
// How long a pipe may have no writer.
constexpr int kWriterMillis = 1000;

absl::Status FromErrno(const char* what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot ", what));
}

// Opens `path` so, writes, and brings it to the disk.
absl::Status WriteTo(const std::string& path, int flags, size_t parts,
                     const FilePart& part) {
  const int fd = open(path.c_str(), flags, 0644);
  if (fd < 0) return FromErrno(flags & O_CREAT ? "create" : "open", path);
  absl::Cleanup shut = [fd] { close(fd); };
  fcntl(fd, F_SETFL, 0);  // only open() may not wait
  for (size_t i = 0; i < parts; ++i) {
    ATOD_ASSIGN_OR_RETURN(std::string_view bytes, part(i));
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
  // Without O_NONBLOCK a pipe that nobody writes to is waited for in open().
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return FromErrno("open", path);
  const absl::Cleanup shut = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0) return FromErrno("read", path);
  if (S_ISDIR(info.st_mode))
    return BadInput({path, "", 0, "a folder", "a file"});
  std::string out;
  std::vector<char> buffer(1 << 16);
  bool waited = false;
  while (true) {
    const ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n > 0) {
      out.append(buffer.data(), n);
      if (!S_ISREG(info.st_mode) && out.size() > kLongestStream)
        return BadInput(
            {path, "", 0, "more than a GiB that has no end", "a file"});
      continue;
    }
    pollfd event{fd, POLLIN, 0};
    if (n < 0 && errno == EAGAIN) {
      poll(&event, 1, -1);
    } else if (n < 0 && errno != EINTR) {
      return FromErrno("read", path);
    } else if (n == 0 && S_ISFIFO(info.st_mode) && out.empty() && !waited) {
      waited = true;  // its writer may be on the way
      if (poll(&event, 1, kWriterMillis) == 0)
        return BadInput(
            {path, "", 0, "a pipe that nobody writes to", "a file"});
    } else if (n == 0) {
      return out;
    }
  }
}

absl::Status WriteFileAtomic(const std::string& path, std::string_view bytes) {
  return WriteFileAtomic(path, absl::MakeConstSpan(&bytes, 1));
}

absl::Status WriteFileAtomic(const std::string& path,
                             absl::Span<const std::string_view> parts) {
  return WriteFileAtomic(path, parts.size(),
                         [&](size_t i) { return parts[i]; });
}

absl::Status WriteFileAtomic(const std::string& path, size_t parts,
                             const FilePart& part) {
  struct stat there;
  if (stat(path.c_str(), &there) == 0 && !S_ISREG(there.st_mode) &&
      !S_ISDIR(there.st_mode)) {
    // Without a reader a pipe cannot be opened so.
    return WriteTo(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK, parts, part);
  }
  const std::string beside = absl::StrCat(path, ".part.", getpid());
  const absl::Status written =
      WriteTo(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, parts, part);
  if (!written.ok()) {
    unlink(beside.c_str());
    return written;
  }
  if (rename(beside.c_str(), path.c_str()) != 0) {
    const absl::Status renamed = FromErrno("rename", beside);
    unlink(beside.c_str());
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
