#include "common/metrics/step_recorder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace atod::metrics {
namespace {

namespace fs = std::filesystem;

// Reads one of the files into `steps` and drops what is not kept from it. Only
// steps that are there already are added to when `create` is false.
absl::Status ReadKept(const std::string& path, int64_t keep_through,
                      bool create, std::map<int64_t, RecordedStep>& steps) {
  if (!fs::exists(path)) return absl::OkStatus();
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::string again;
  for (const auto line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    std::optional<RecordedStep> read = ReadStepLine({line.data(), line.size()});
    if (!read.has_value() || read->step > keep_through ||
        (!create && !steps.contains(read->step))) {
      continue;
    }
    absl::StrAppend(&again, line, "\n");
    RecordedStep& kept = steps[read->step];
    kept.step = read->step;
    if (read->time != 0) kept.time = read->time;
    for (const auto& [tag, value] : read->scalars) kept.scalars[tag] = value;
  }
  return again == text ? absl::OkStatus() : WriteFileAtomic(path, again);
}

absl::Status AppendLine(const std::string& path, const std::string& line) {
  const auto error = [&](const char* what) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot ", what));
  };
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return error("open");
  const absl::Cleanup shut = [fd] { close(fd); };
  if (write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    return error("write");
  return fdatasync(fd) == 0 ? absl::OkStatus() : error("sync");
}

}  // namespace

absl::StatusOr<std::unique_ptr<StepRecorder>> StepRecorder::Open(
    const RunFolder& folder, const std::string& run, int64_t keep_through,
    Registry* registry, Clock& clock) {
  std::map<int64_t, RecordedStep> steps;
  ATOD_RETURN_IF_ERROR(
      ReadKept(folder.metrics(), keep_through, /*create=*/true, steps));
  ATOD_RETURN_IF_ERROR(
      ReadKept(folder.timings(), keep_through, /*create=*/false, steps));
  const std::string events_dir = folder.events();
  std::error_code ec;
  fs::remove_all(events_dir, ec);
  ATOD_RETURN_IF_ERROR(MakeDirs(events_dir));
  const double now = absl::ToDoubleSeconds(clock.Now() - absl::UnixEpoch());
  ATOD_ASSIGN_OR_RETURN(std::unique_ptr<EventWriter> events,
                        EventWriter::Create(events_dir, now));
  std::vector<RecordedStep> kept;
  for (auto& [step, recorded] : steps) {
    ATOD_RETURN_IF_ERROR(events->Write(step, recorded.time, recorded.scalars));
    kept.push_back(std::move(recorded));
  }
  std::unique_ptr<StepRecorder> recorder(new StepRecorder(
      folder, run, registry, clock, std::move(events), std::move(kept)));
  for (const RecordedStep& step : recorder->kept_)
    recorder->SetGauges(step.scalars);
  return recorder;
}

absl::Status StepRecorder::Record(
    uint32_t step, const std::map<std::string, double>& scalars) {
  const double time = absl::ToDoubleSeconds(clock_.Now() - absl::UnixEpoch());
  RecordedStep metrics{step, 0, {}}, timings{step, time, {}};
  for (const auto& [tag, value] : scalars)
    (MeasuredByClock(tag) ? timings : metrics).scalars[tag] = value;
  // In this order: who sees a step finds its times.
  ATOD_RETURN_IF_ERROR(
      AppendLine(folder_.timings(), WriteStepLine(timings) + "\n"));
  ATOD_RETURN_IF_ERROR(
      AppendLine(folder_.metrics(), WriteStepLine(metrics) + "\n"));
  ATOD_RETURN_IF_ERROR(events_->Write(step, time, scalars));
  SetGauges(scalars);
  return absl::OkStatus();
}

void StepRecorder::SetGauges(const std::map<std::string, double>& scalars) {
  if (registry_ == nullptr) return;
  for (const auto& [tag, value] : scalars) {
    prometheus::Gauge*& gauge = gauges_[tag];
    if (gauge == nullptr) gauge = &registry_->StepGauge(tag, run_);
    gauge->Set(value);
  }
}

}  // namespace atod::metrics
