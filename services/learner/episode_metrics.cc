#include "services/learner/episode_metrics.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "services/learner/trajectory_check.h"

namespace atod::learner {
namespace {

struct Mean {
  double sum = 0;
  double count = 0;
  void Add(double x) {
    sum += x;
    ++count;
  }
};

void Put(std::map<std::string, double>& out, const std::string& tag,
         const Mean& mean) {
  if (mean.count > 0) out[tag] = mean.sum / mean.count;
}

// PREFIX/success_rate, PREFIX/success_rate/CATEGORY, PREFIX/reward,
// PREFIX/length.
void PutOutcomes(const std::vector<v1::Trajectory>& trajectories,
                 const std::string& prefix,
                 std::map<std::string, double>& out) {
  Mean success, reward, length;
  std::map<std::string, Mean> by_category;
  for (const v1::Trajectory& t : trajectories) {
    success.Add(t.outcome().success());
    reward.Add(t.outcome().reward());
    length.Add(t.outcome().length());
    if (!t.task().category().empty())
      by_category[t.task().category()].Add(t.outcome().success());
  }
  Put(out, prefix + "/success_rate", success);
  Put(out, prefix + "/reward", reward);
  Put(out, prefix + "/length", length);
  for (const auto& [category, mean] : by_category)
    Put(out, absl::StrCat(prefix, "/success_rate/", category), mean);
}

}  // namespace

std::map<std::string, double> EpisodeMetrics(
    const std::vector<v1::Trajectory>& trajectories) {
  std::map<std::string, double> out;
  PutOutcomes(trajectories, "episode", out);
  Mean valid, admissible, prompt, response, clipped;
  for (const v1::Trajectory& t : trajectories) {
    for (const v1::Turn& turn : t.turns()) {
      if (!turn.trainable()) continue;
      valid.Add(turn.valid());
      admissible.Add(turn.admissible());
      prompt.Add(turn.prompt_tokens());
    }
    for (const v1::Sequence& sequence : t.sequences()) {
      for (const v1::Span& span : sequence.spans()) {
        response.Add(span.length());
        clipped.Add(span.finish() == v1::LENGTH);
      }
    }
  }
  Put(out, "episode/valid_action_ratio", valid);
  Put(out, "episode/admissible_ratio", admissible);
  Put(out, "prompt_length/mean", prompt);
  Put(out, "response_length/mean", response);
  Put(out, "response_length/clip_ratio", clipped);
  return out;
}

std::map<std::string, double> StalenessMetrics(
    const std::vector<v1::Trajectory>& trajectories, uint64_t now) {
  double sum = 0, count = 0;
  for (const v1::Trajectory& t : trajectories)
    for (const v1::Sequence& s : t.sequences())
      for (const v1::Span& span : s.spans())
        for (const v1::VersionRun& run : span.versions()) {
          sum += (static_cast<double>(now) -
                  static_cast<double>(run.version().number())) *
                 run.count();
          count += run.count();
        }
  std::map<std::string, double> out;
  if (count > 0) out["rollout/staleness"] = sum / count;
  return out;
}

std::map<std::string, double> DroppedMetrics(
    const std::vector<DroppedSample>& dropped, const std::string& prefix) {
  std::map<std::string, double> by_kind;
  for (const char* kind : kErrorKinds) by_kind[kind] = 0;
  double errors = 0;
  for (const DroppedSample& d : dropped) {
    if (d.error.empty()) continue;
    ++errors;
    ++by_kind[d.error];
  }
  std::map<std::string, double> out = {
      {prefix + "/errors", errors},
      {prefix + "/dropped", static_cast<double>(dropped.size())}};
  if (prefix == "episode")
    for (const auto& [kind, count] : by_kind)
      out["episode/errors_" + kind] = count;
  return out;
}

std::map<std::string, double> PanelMetrics(
    const std::vector<v1::Trajectory>& trajectories) {
  std::map<std::string, double> out;
  PutOutcomes(trajectories, "val", out);
  out["val/tasks"] = static_cast<double>(trajectories.size());
  return out;
}

std::string PanelResults(const std::vector<v1::Trajectory>& trajectories,
                         const std::vector<DroppedSample>& dropped,
                         const std::vector<v1::Task>& tasks,
                         const std::string& panel_hash) {
  std::map<uint32_t, std::string> lines;  // by place in the panel
  const auto begin = [](uint32_t step, uint32_t index, const v1::Task& task) {
    nlohmann::ordered_json line;
    line["step"] = step;
    line["index"] = index;
    line["task"] = task.task_id();
    line["category"] = task.category();
    return line;
  };
  for (const v1::Trajectory& t : trajectories) {
    auto line = begin(t.id().step(), t.id().group(), t.task());
    line["success"] = t.outcome().success();
    line["reward"] = t.outcome().reward();
    line["score"] = t.outcome().score();
    line["turns"] = t.outcome().length();
    line["done"] = v1::DoneReason_Name(t.outcome().done_reason());
    line["panel"] = panel_hash;
    line["temperature"] = t.sampling().temperature();
    lines[t.id().group()] = line.dump();
  }
  for (const DroppedSample& d : dropped) {
    auto line = begin(d.id.step, d.id.group, tasks[d.id.group]);
    line["done"] = v1::DoneReason_Name(v1::ERROR);
    line["error"] = d.reason;
    line["panel"] = panel_hash;
    // A reason is a peer's text: it may be no UTF-8.
    lines[d.id.group] =
        line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  std::string out;
  for (const auto& [index, line] : lines) absl::StrAppend(&out, line, "\n");
  return out;
}

bool EvalTracker::Add(std::map<std::string, double>& metrics) {
  const auto it = metrics.find("val/success_rate");
  if (it == metrics.end()) return false;
  const double now = it->second;
  const bool better = history_.empty() ||
                      now > *std::max_element(history_.begin(), history_.end());
  history_.push_back(now);
  const size_t n = std::min(mean_last_, history_.size());
  metrics["val/success_rate_best"] =
      *std::max_element(history_.begin(), history_.end());
  metrics["val/success_rate_mean_last"] =
      std::accumulate(history_.end() - n, history_.end(), 0.0) / n;
  return better;
}

}  // namespace atod::learner
