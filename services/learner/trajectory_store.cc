#include "services/learner/trajectory_store.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace atod::learner {
namespace {

namespace fs = std::filesystem;

struct FrameHeader {
  uint32_t length;
  uint32_t checksum;
};

uint32_t Checksum(const std::string& payload) {
  return static_cast<uint32_t>(XXH3_64bits(payload.data(), payload.size()));
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

}  // namespace

std::string TrajectoryFile(const std::string& dir, v1::Purpose purpose,
                           uint32_t step) {
  return absl::StrFormat("%s/%s%06u.pb", dir, Prefix(purpose), step);
}

std::string AdvantageFile(const std::string& dir, uint32_t step) {
  return absl::StrFormat("%s/train-%06u.advantages.jsonl", dir, step);
}

absl::StatusOr<std::unique_ptr<TrajectoryStore>> TrajectoryStore::Open(
    const std::string& dir) {
  ATOD_RETURN_IF_ERROR(MakeDirs(dir));
  return std::unique_ptr<TrajectoryStore>(new TrajectoryStore(dir));
}

absl::Status TrajectoryStore::Append(const v1::Trajectory& trajectory) {
  const std::string path =
      TrajectoryFile(dir_, trajectory.purpose(), trajectory.id().step());
  std::string frame(sizeof(FrameHeader), '\0');
  std::string payload;
  if (!trajectory.SerializeToString(&payload))
    return absl::InternalError(absl::StrCat(path, ": cannot serialise"));
  const FrameHeader header{static_cast<uint32_t>(payload.size()),
                           Checksum(payload)};
  std::memcpy(frame.data(), &header, sizeof(header));
  frame += payload;
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0)
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot open"));
  const absl::Cleanup shut = [fd] { close(fd); };
  size_t done = 0;
  while (done < frame.size()) {
    const ssize_t n = write(fd, frame.data() + done, frame.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const absl::Status status =
          absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot write"));
      // No half frame in front of the next one.
      if (const off_t end = lseek(fd, 0, SEEK_END);
          end < 0 || ftruncate(fd, end - static_cast<off_t>(done)) != 0) {
        return absl::DataLossError(
            absl::StrCat(path, ": a broken frame could not be removed"));
      }
      return status;
    }
    done += n;
  }
  return absl::OkStatus();
}

absl::Status ReadTrajectories(const std::string& path,
                              const std::function<void(v1::Trajectory)>& each) {
  ATOD_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  size_t at = 0;
  while (at + sizeof(FrameHeader) <= bytes.size()) {
    FrameHeader header;
    std::memcpy(&header, bytes.data() + at, sizeof(header));
    at += sizeof(header);
    if (bytes.size() - at < header.length) return absl::OkStatus();
    const std::string payload = bytes.substr(at, header.length);
    v1::Trajectory trajectory;
    if (Checksum(payload) != header.checksum ||
        !trajectory.ParseFromString(payload)) {
      return absl::DataLossError(absl::StrCat(
          path, ": frame at byte ", at - sizeof(header), " is corrupt"));
    }
    at += header.length;
    each(std::move(trajectory));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint32_t>> StoredSteps(const std::string& dir,
                                                  v1::Purpose purpose) {
  std::error_code ec;
  std::vector<uint32_t> steps;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    uint32_t step = 0;
    if (entry.path().extension() == ".pb" &&
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
    fs::rename(path, fs::path(away) / path.filename(), ec);
    if (ec) {
      return absl::ErrnoToStatus(
          ec.value(), absl::StrCat(path.string(), ": cannot move aside"));
    }
  }
  return absl::OkStatus();
}

}  // namespace atod::learner
