#pragma once

#include <map>
#include <string>
#include <vector>

#include "atod/v1/trajectory.pb.h"
#include "services/learner/coordinator.h"

namespace atod::learner {

// episode/*, response_length/* and prompt_length/* of a step's training
// rollouts. Tags without a value (no turns) are absent. A category whose name
// has characters beyond [a-zA-Z0-9_-] keeps them.
std::map<std::string, double> EpisodeMetrics(
    const std::vector<v1::Trajectory>& trajectories);

// rollout/staleness: mean versions between sampling and `now`, over tokens.
std::map<std::string, double> StalenessMetrics(
    const std::vector<v1::Trajectory>& trajectories, uint64_t now);

// PREFIX/errors, PREFIX/dropped and, of training (prefix "episode"), the errors
// by kind: what no other number of these episodes is over.
std::map<std::string, double> DroppedMetrics(
    const std::vector<DroppedSample>& dropped, const std::string& prefix);

// val/success_rate (and by category), val/reward, val/length and val/tasks of
// one evaluation: of the tasks that were played.
std::map<std::string, double> PanelMetrics(
    const std::vector<v1::Trajectory>& trajectories);

// One JSON object a line: what became of every panel task, in panel order. A
// task that was left out has `error` in place of the numbers. `tasks` are those
// of the panel.
std::string PanelResults(const std::vector<v1::Trajectory>& trajectories,
                         const std::vector<DroppedSample>& dropped,
                         const std::vector<v1::Task>& tasks,
                         const std::string& panel_hash);

// Evaluations of a run so far: best, and mean of the last n. Part of a
// checkpoint.
class EvalTracker {
 public:
  explicit EvalTracker(size_t mean_last) : mean_last_(mean_last) {}
  EvalTracker(size_t mean_last, std::vector<double> history)
      : mean_last_(mean_last), history_(std::move(history)) {}

  // Adds val/success_rate_best and val/success_rate_mean_last. True when this
  // evaluation is better than all before it.
  bool Add(std::map<std::string, double>& metrics);
  // val/success_rate of every evaluation, oldest first.
  const std::vector<double>& history() const { return history_; }

 private:
  size_t mean_last_;
  std::vector<double> history_;
};

}  // namespace atod::learner
