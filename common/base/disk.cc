#include "common/base/disk.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace atod {
namespace {

// As the kernel names them; of FUSE the programs that are known to go over a
// network, for it also carries local disks and container layers.
constexpr std::string_view kNetworkTypes[] = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "afs",
    "ceph",
    "coda",
    "lustre",
    "gpfs",
    "beegfs",
    "orangefs",
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.gcsfuse",
    "fuse.goofys",
    "fuse.rclone",
    "fuse.juicefs",
    "fuse.ceph",
    "fuse.davfs",
    "fuse.glusterfs",
    "fuse.mount-s3",
    "fuse.blobfuse",
    "fuse.blobfuse2",
    "fuse.seaweedfs",
};

// Octal escapes (\040 for a space) as mountinfo has them.
std::string Unescape(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out.push_back(static_cast<char>((text[i + 1] - '0') * 64 +
                                      (text[i + 2] - '0') * 8 +
                                      (text[i + 3] - '0')));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

bool Holds(const std::string& mount, const std::string& path) {
  return mount == "/" || path == mount || path.rfind(mount + "/", 0) == 0;
}

}  // namespace

std::string FileSystemType(const std::string& path,
                           std::string_view mountinfo) {
  std::string best, type;
  for (const absl::string_view line :
       absl::StrSplit(absl::string_view(mountinfo.data(), mountinfo.size()),
                      '\n', absl::SkipEmpty())) {
    // ID PARENT DEVICE ROOT MOUNT OPTIONS [OPTIONAL…] - TYPE SOURCE SUPER
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() < 6 || std::distance(dash, fields.end()) < 2) continue;
    const std::string mount = Unescape(fields[4]);
    // Of two mounts at one place the later one is seen.
    if (Holds(mount, path) && mount.size() >= best.size()) {
      best = mount;
      type = std::string(*(dash + 1));
    }
  }
  return type;
}

absl::Status RefuseNetworkType(const std::string& path,
                               const std::string& type) {
  if (std::find(std::begin(kNetworkTypes), std::end(kNetworkTypes), type) ==
      std::end(kNetworkTypes)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": found file system ", type,
                   ", expected a local disk: the ledger relies on its locks "
                   "and syncs"));
}

absl::StatusOr<std::unique_ptr<FolderLock>> FolderLock::Take(
    const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return absl::ErrnoToStatus(errno, absl::StrCat(folder, ": cannot open"));
  std::unique_ptr<FolderLock> lock(new FolderLock(fd));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(folder,
                     ": found another process at work in it, expected "
                     "one learner a run"));
  }
  return lock;
}

FolderLock::~FolderLock() { close(fd_); }

absl::Status RequireLocalDisk(const std::string& path) {
  std::error_code ec;
  const std::string real =
      std::filesystem::weakly_canonical(std::filesystem::absolute(path), ec)
          .string();
  const auto mountinfo = ReadFile("/proc/self/mountinfo");
  if (ec || !mountinfo.ok()) return absl::OkStatus();
  return RefuseNetworkType(path, FileSystemType(real, *mountinfo));
}

}  // namespace atod
