#include "services/cli/progress.h"

#include <sys/stat.h>

#include <cmath>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace atod::cli {

std::vector<RecordedStep> StepFollower::File::Poll() {
  std::vector<RecordedStep> out;
  struct stat file;
  if (stat(path.c_str(), &file) != 0) return out;
  if (file.st_ino != inode || static_cast<uint64_t>(file.st_size) < offset)
    offset = 0;
  inode = file.st_ino;
  std::ifstream in(path, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(offset));
  std::string line;
  while (std::getline(in, line) && !in.eof()) {
    offset += line.size() + 1;
    if (auto step = ReadStepLine(line)) out.push_back(*std::move(step));
  }
  return out;
}

std::vector<RecordedStep> StepFollower::Poll() {
  std::vector<RecordedStep> out;
  // In this order: a step's times are written before it.
  std::vector<RecordedStep> steps = metrics_.Poll();
  for (RecordedStep& times : timings_.Poll())
    times_[times.step] = std::move(times);
  for (RecordedStep& step : steps) {
    if (step.step <= last_step_) continue;
    RecordedStep& times = times_[step.step];
    step.time = times.time;
    step.scalars.merge(times.scalars);
    times_.erase(times_.begin(), times_.upper_bound(step.step));
    if (step.time != 0 && step.time < since_) {
      earlier_ = step.step;
      continue;
    }
    last_step_ = step.step;
    out.push_back(std::move(step));
  }
  return out;
}

std::string StepLine(const RecordedStep& step, uint32_t steps) {
  std::string out = absl::StrFormat("step %4u/%u", step.step, steps);
  const auto add = [&](const char* tag, const char* label, int digits,
                       double scale = 1, const char* unit = "") {
    const auto it = step.scalars.find(tag);
    if (it == step.scalars.end() || std::isnan(it->second)) return;
    absl::StrAppendFormat(&out, "  %s %.*f%s", label, digits,
                          it->second * scale, unit);
  };
  const auto left_out = [&](const char* tag) {
    const auto it = step.scalars.find(tag);
    return it != step.scalars.end() && it->second > 0;
  };
  add("episode/reward", "reward", 2);
  add("episode/success_rate", "success", 1, 100, "%");
  add("hybrid/kl_coef", "kl_coef", 3);
  add("hybrid/rl_coef", "rl_coef", 3);
  add("throughput/tokens_per_second", "tokens/s", 0);
  add("timing/step_seconds", "took", 1, 1, "s");
  add("val/success_rate", "| eval success", 1, 100, "%");
  // What the numbers before leave out.
  if (left_out("val/dropped")) add("val/dropped", "without", 0, 1, " games");
  if (left_out("episode/dropped"))
    add("episode/dropped", "| left out", 0, 1, " episodes");
  return out;
}

std::string ShortDuration(absl::Duration d) {
  const int64_t s = absl::ToInt64Seconds(d);
  if (s >= 3600) return absl::StrFormat("%dh%02dm", s / 3600, s / 60 % 60);
  if (s >= 60) return absl::StrFormat("%dm%02ds", s / 60, s % 60);
  return absl::StrFormat("%ds", s);
}

std::optional<absl::Duration> TimeLeft(absl::Duration elapsed, double done,
                                       double total) {
  if (done <= 0) return std::nullopt;
  return elapsed * ((total - done) / done);
}

}  // namespace atod::cli
