#include "common/metrics/step_recorder.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace atod::metrics {
namespace {

namespace fs = std::filesystem;

// One line of metrics.jsonl.
struct Line {
  int64_t step = 0;
  double time = 0;
  std::map<std::string, double> scalars;
  std::string text;
};

std::vector<Line> ReadLines(const std::string& text, int64_t keep_through) {
  std::vector<Line> out;
  for (const auto piece : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    Line line;
    line.text = std::string(piece);
    const auto json = nlohmann::json::parse(line.text, nullptr, false);
    // A line that a dying process cut short.
    if (!json.is_object() || !json.contains("step") ||
        !json["step"].is_number_integer()) {
      continue;
    }
    line.step = json["step"].get<int64_t>();
    if (line.step > keep_through) continue;
    for (const auto& [key, value] : json.items()) {
      if (key == "step") continue;
      const double number = value.is_number() ? value.get<double>() : NAN;
      (key == "time" ? line.time : line.scalars[key]) = number;
    }
    out.push_back(std::move(line));
  }
  return out;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StepRecorder>> StepRecorder::Open(
    const std::string& run_dir, const std::string& run, int64_t keep_through,
    Registry* registry, Clock& clock) {
  const std::string path = absl::StrCat(run_dir, "/metrics.jsonl");
  std::vector<Line> kept;
  if (fs::exists(path)) {
    ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
    kept = ReadLines(text, keep_through);
    std::string again;
    for (const Line& line : kept) absl::StrAppend(&again, line.text, "\n");
    if (again != text) ATOD_RETURN_IF_ERROR(WriteFileAtomic(path, again));
  }
  const std::string events_dir = absl::StrCat(run_dir, "/tb");
  std::error_code ec;
  fs::remove_all(events_dir, ec);
  ATOD_RETURN_IF_ERROR(MakeDirs(events_dir));
  const double now = absl::ToDoubleSeconds(clock.Now() - absl::UnixEpoch());
  ATOD_ASSIGN_OR_RETURN(std::unique_ptr<EventWriter> events,
                        EventWriter::Create(events_dir, now));
  for (const Line& line : kept) {
    ATOD_RETURN_IF_ERROR(events->Write(line.step, line.time, line.scalars));
  }
  std::unique_ptr<StepRecorder> recorder(
      new StepRecorder(path, run, registry, clock, std::move(events)));
  for (const Line& line : kept) recorder->SetGauges(line.scalars);
  return recorder;
}

absl::Status StepRecorder::Record(
    uint32_t step, const std::map<std::string, double>& scalars) {
  const double time = absl::ToDoubleSeconds(clock_.Now() - absl::UnixEpoch());
  nlohmann::ordered_json json;
  json["step"] = step;
  json["time"] = time;
  for (const auto& [tag, value] : scalars) json[tag] = value;
  const std::string line = json.dump() + "\n";
  std::FILE* file = std::fopen(path_.c_str(), "ae");
  if (file == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": cannot open"));
  }
  const bool written =
      std::fwrite(line.data(), 1, line.size(), file) == line.size();
  if (std::fclose(file) != 0 || !written) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": cannot write"));
  }
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
