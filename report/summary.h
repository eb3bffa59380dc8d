#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "report/run_data.h"
#include "report/statistics.h"

namespace atod::report {

// One evaluation as the protocol reports it: success with its interval, and the
// mean length of its episodes.
struct EvalPoint {
  uint32_t step = 0;
  Estimate success;
  double turns = 0;
};

// The paper's Table 1 for one run, with what that table leaves out. Evaluation
// is at sampling.eval_temperature, training rollouts at T = 1.
struct RunSummary {
  std::string name, recipe, seed;
  uint32_t steps = 0;
  std::string panel;       // PanelId of the last evaluation; empty without one
  size_t games = 0;        // of the panel, those left out among them
  size_t evaluations = 0;  // after step 0
  std::optional<EvalPoint> before, best, last;
  size_t mean_count = 0;  // n of the mean of the last n evaluations
  std::optional<Estimate> mean_last;
  double mean_last_turns = 0;
  // How much too high `best` is on average if all evaluations were equal and
  // independent.
  double best_bias = 0;
  size_t rollout_steps = 0;
  std::optional<Estimate> rollout;  // training rollouts of the last steps
  double rollout_turns = 0;
  // By game of the panel, for paired differences; NaN where it was left out.
  std::vector<double> last_games, best_games, mean_games;
};

RunSummary Summarize(const RunData& run);

// Identity of an evaluation's games, those left out among them, and of how they
// are played.
std::string PanelId(const RunData& run, const PanelEval& eval);

// Runs that differ in nothing but the seed (and name, addresses, threads).
struct Group {
  std::string label;
  std::vector<size_t> runs;  // indices, in the order given
};
std::vector<Group> GroupRuns(const std::vector<RunData>& runs);

// Keys of the configuration that do not change what is learned.
bool IsIncidental(const std::string& key);

}  // namespace atod::report
