#include "services/learner/trajectory_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <optional>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::learner {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kMagic = 0x50534441;  // "ADSP"
constexpr char kSuffix[] = ".spool";

struct FrameHeader {
  uint32_t magic;
  uint32_t length;
  uint32_t payload_crc;
  uint32_t header_crc;  // of the three before
};
static_assert(sizeof(FrameHeader) == 16);

uint32_t Crc(const void* data, size_t size) {
  return static_cast<uint32_t>(
      crc32_z(0, static_cast<const Bytef*>(data), size));
}

uint32_t HeaderCrc(const FrameHeader& header) {
  return Crc(&header, offsetof(FrameHeader, header_crc));
}

const char* Prefix(v1::Purpose purpose) {
  return purpose == v1::EVAL ? "eval-" : "train-";
}

// The step in "train-000012…", or nothing.
bool StepOf(const std::string& name, const std::string& prefix,
            uint32_t* step) {
  if (name.rfind(prefix, 0) != 0) return false;
  const size_t end = name.find('.', prefix.size());
  return end != std::string::npos &&
         absl::SimpleAtoi(name.substr(prefix.size(), end - prefix.size()),
                          step);
}

absl::Status Errno(const std::string& path, const char* what) {
  return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot ", what));
}

// Cuts the torn tail off a file; returns the bytes that stay.
absl::StatusOr<uint64_t> CutTornTail(const std::string& path) {
  ATOD_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  ATOD_ASSIGN_OR_RETURN(const uint64_t end,
                        ReadFrames(bytes, path, [](const v1::Trajectory&) {}));
  if (end < bytes.size()) {
    spdlog::warn("{}: {} bytes of an unfinished write cut off at {}", path,
                 bytes.size() - end, end);
    if (truncate(path.c_str(), static_cast<off_t>(end)) != 0)
      return Errno(path, "cut the torn tail");
  }
  return end;
}

}  // namespace

std::string TrajectoryFile(const std::string& dir, v1::Purpose purpose,
                           uint32_t step) {
  return absl::StrFormat("%s/%s%06u%s", dir, Prefix(purpose), step, kSuffix);
}

std::string AdvantageFile(const std::string& dir, uint32_t step) {
  return absl::StrFormat("%s/train-%06u.advantages.jsonl", dir, step);
}

// --- Writing.

absl::StatusOr<std::unique_ptr<TrajectoryStore>> TrajectoryStore::Open(
    const std::string& dir) {
  ATOD_RETURN_IF_ERROR(MakeDirs(dir));
  return std::unique_ptr<TrajectoryStore>(new TrajectoryStore(dir));
}

TrajectoryStore::~TrajectoryStore() {
  for (const auto& [path, file] : files_)
    if (file.fd >= 0) close(file.fd);
}

absl::StatusOr<TrajectoryStore::File*> TrajectoryStore::Opened(
    const std::string& path) {
  const auto known = files_.find(path);
  if (known != files_.end() && known->second.fd >= 0) return &known->second;
  File file;
  if (known != files_.end()) {
    file = known->second;
  } else if (fs::exists(path)) {
    ATOD_ASSIGN_OR_RETURN(const uint64_t end, CutTornTail(path));
    file.end = file.synced = static_cast<int64_t>(end);
  } else {
    created_ = true;
  }
  file.fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file.fd < 0) return Errno(path, "open");
  return &(files_[path] = file);
}

absl::Status TrajectoryStore::Append(const v1::Trajectory& trajectory) {
  const std::string path =
      TrajectoryFile(dir_, trajectory.purpose(), trajectory.id().step());
  std::string frame(sizeof(FrameHeader), '\0');
  if (!trajectory.AppendToString(&frame))
    return absl::InternalError(absl::StrCat(path, ": cannot serialise"));
  const size_t length = frame.size() - sizeof(FrameHeader);
  FrameHeader header{kMagic, static_cast<uint32_t>(length),
                     Crc(frame.data() + sizeof(FrameHeader), length), 0};
  header.header_crc = HeaderCrc(header);
  std::memcpy(frame.data(), &header, sizeof(header));
  ATOD_ASSIGN_OR_RETURN(File * file, Opened(path));
  size_t done = 0;
  while (done < frame.size()) {
    const ssize_t n = write(file->fd, frame.data() + done, frame.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const absl::Status status = Errno(path, "write");
      // No half frame in front of the next one.
      if (ftruncate(file->fd, file->end) != 0) {
        return absl::DataLossError(
            absl::StrCat(path, ": a broken frame could not be removed"));
      }
      return status;
    }
    done += n;
  }
  file->end += static_cast<int64_t>(frame.size());
  return absl::OkStatus();
}

absl::Status TrajectoryStore::Sync() {
  absl::Status status;
  for (auto& [path, file] : files_) {
    if (file.fd < 0) continue;
    if (fdatasync(file.fd) != 0) status = Errno(path, "sync");
  }
  if (status.ok() && created_) status = SyncPath(dir_);
  if (status.ok()) created_ = false;
  for (auto& [path, file] : files_) {
    if (file.fd < 0) continue;
    if (!status.ok()) {
      file.end = file.synced;
      if (ftruncate(file.fd, file.end) != 0)
        status = absl::DataLossError(
            absl::StrCat(path,
                         ": frames that are not on the disk could not be "
                         "removed"));
    }
    file.synced = file.end;
    close(std::exchange(file.fd, -1));
  }
  return status;
}

// --- Reading.

namespace {

// The header of the frame at `at`; nothing when it is damaged.
std::optional<FrameHeader> HeaderAt(std::string_view bytes, size_t at) {
  FrameHeader header;
  std::memcpy(&header, bytes.data() + at, sizeof(header));
  if (header.magic != kMagic || header.header_crc != HeaderCrc(header))
    return std::nullopt;
  return header;
}

// ReadFrames from byte `at` on, which ends up at the end of the last whole
// frame or at the damaged one.
absl::Status ReadFramesFrom(std::string_view bytes, const std::string& name,
                            const std::function<void(v1::Trajectory)>& each,
                            size_t& at) {
  while (bytes.size() - at >= sizeof(FrameHeader)) {
    const auto corrupt = [&](const char* what) {
      return absl::DataLossError(absl::StrCat(name, ": frame at byte ", at,
                                              ": found ", what,
                                              ", expected what was written"));
    };
    const std::optional<FrameHeader> found = HeaderAt(bytes, at);
    if (!found.has_value()) {
      // Blocks of a write that never reached the disk may read as zeros.
      if (bytes.find_first_not_of('\0', at) == bytes.npos)
        return absl::OkStatus();
      return corrupt("a damaged header");
    }
    const FrameHeader& header = *found;
    const std::string_view rest = bytes.substr(at + sizeof(header));
    if (rest.size() < header.length) return absl::OkStatus();
    v1::Trajectory trajectory;
    if (Crc(rest.data(), header.length) != header.payload_crc)
      return corrupt("a wrong checksum");
    if (header.length > INT_MAX ||
        !trajectory.ParseFromArray(rest.data(),
                                   static_cast<int>(header.length))) {
      return corrupt("no trajectory");
    }
    each(std::move(trajectory));
    at += sizeof(header) + header.length;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<uint64_t> ReadFrames(
    std::string_view bytes, const std::string& name,
    const std::function<void(v1::Trajectory)>& each) {
  size_t at = 0;
  ATOD_RETURN_IF_ERROR(ReadFramesFrom(bytes, name, each, at));
  return at;
}

absl::Status ReadTrajectories(const std::string& path,
                              const std::function<void(v1::Trajectory)>& each) {
  ATOD_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  return ReadFrames(bytes, path, each).status();
}

absl::Status SalvageTrajectories(
    const std::string& path, const std::function<void(v1::Trajectory)>& each) {
  ATOD_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  std::string damage;
  size_t at = 0;
  for (absl::Status read;
       !(read = ReadFramesFrom(bytes, path, each, at)).ok();) {
    absl::StrAppend(&damage, damage.empty() ? "" : "; ", read.message(),
                    ": left out");
    const std::optional<FrameHeader> header = HeaderAt(bytes, at);
    // Where the next frame begins is known from a whole header alone.
    if (!header.has_value())
      return absl::DataLossError(
          absl::StrCat(damage, " with all that follows in the file"));
    at += sizeof(*header) + header->length;
  }
  const std::string tail =
      at == bytes.size()
          ? ""
          : absl::StrCat(path, ": frame at byte ", at, ": found ",
                         bytes.size() - at,
                         " bytes that are no whole frame: left out (a write "
                         "under way, or a file that was cut short)");
  if (!damage.empty())
    return absl::DataLossError(
        absl::StrCat(damage, tail.empty() ? "" : "; ", tail));
  return tail.empty() ? absl::OkStatus() : absl::UnavailableError(tail);
}

absl::StatusOr<v1::Trajectory> FindTrajectory(const RunFolder& run,
                                              const WorkId& id) {
  const std::string path = TrajectoryFile(run.spool(), id.purpose, id.step);
  std::optional<v1::Trajectory> found;
  if (fs::exists(path)) {
    ATOD_RETURN_IF_ERROR(ReadTrajectories(path, [&](v1::Trajectory t) {
      if (IdOf(t) == id) found = std::move(t);
    }));
  }
  if (!found.has_value()) {
    return BadInput({.file = path,
                     .field = "trajectory id",
                     .found = FormatId(id),
                     .expected = "an id that `atod trajectories list` shows"});
  }
  return *std::move(found);
}

absl::StatusOr<std::vector<uint32_t>> StoredSteps(const std::string& dir,
                                                  v1::Purpose purpose) {
  std::error_code ec;
  std::vector<uint32_t> steps;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    uint32_t step = 0;
    if (entry.path().extension() == kSuffix &&
        StepOf(entry.path().filename(), Prefix(purpose), &step)) {
      steps.push_back(step);
    }
  }
  if (ec)
    return absl::ErrnoToStatus(ec.value(), absl::StrCat(dir, ": cannot list"));
  std::sort(steps.begin(), steps.end());
  return steps;
}

absl::Status SupersedeAfter(const std::string& dir, int64_t last_step,
                            int64_t last_eval, uint32_t incarnation) {
  const std::string away = absl::StrCat(dir, "/superseded-", incarnation);
  std::vector<fs::path> moved;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    uint32_t step = 0;
    const std::string name = entry.path().filename();
    if ((StepOf(name, "train-", &step) && step > last_step) ||
        (StepOf(name, "eval-", &step) && step > last_eval)) {
      moved.push_back(entry.path());
    }
  }
  if (ec) return absl::OkStatus();  // nothing stored yet
  if (moved.empty()) return absl::OkStatus();
  ATOD_RETURN_IF_ERROR(MakeDirs(away));
  for (const fs::path& path : moved) {
    if (path.extension() == kSuffix) {
      // Nothing needs it any more: damage is told, and stays.
      const auto end = CutTornTail(path);
      if (!end.ok()) spdlog::warn("{}", std::string(end.status().message()));
    }
    fs::rename(path, fs::path(away) / path.filename(), ec);
    if (ec) {
      return absl::ErrnoToStatus(
          ec.value(), absl::StrCat(path.string(), ": cannot move aside"));
    }
  }
  return SyncPath(dir);
}

}  // namespace atod::learner
