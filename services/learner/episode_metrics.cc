#include "services/learner/episode_metrics.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"

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

std::map<std::string, double> PanelMetrics(
    const std::vector<v1::Trajectory>& trajectories) {
  std::map<std::string, double> out;
  PutOutcomes(trajectories, "val", out);
  return out;
}

std::string PanelResults(const std::vector<v1::Trajectory>& trajectories,
                         const std::string& panel_hash) {
  std::vector<const v1::Trajectory*> sorted;
  for (const v1::Trajectory& t : trajectories) sorted.push_back(&t);
  std::sort(sorted.begin(), sorted.end(),
            [](const v1::Trajectory* a, const v1::Trajectory* b) {
              return a->id().group() < b->id().group();
            });
  std::string out;
  for (const v1::Trajectory* t : sorted) {
    nlohmann::ordered_json line;
    line["step"] = t->id().step();
    line["index"] = t->id().group();
    line["task"] = t->task().task_id();
    line["category"] = t->task().category();
    line["success"] = t->outcome().success();
    line["reward"] = t->outcome().reward();
    line["score"] = t->outcome().score();
    line["turns"] = t->outcome().length();
    line["done"] = v1::DoneReason_Name(t->outcome().done_reason());
    line["panel"] = panel_hash;
    line["temperature"] = t->sampling().temperature();
    absl::StrAppend(&out, line.dump(), "\n");
  }
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
