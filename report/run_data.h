#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace atod::report {

// What a report shows of a run, read from its folder; nothing here is computed
// beyond sums over turns. A run may be unfinished: what is not there yet is
// empty.

// One line of metrics.jsonl with its line of timings.jsonl.
struct StepRow {
  uint32_t step = 0;
  std::map<std::string, double> scalars;  // finite values alone
  std::optional<double> value(const std::string& tag) const;
};

struct Game {
  std::string panel;  // hash of the learner's panel; empty for other games
  std::string task;
  std::string category;
  bool success = false;
  double turns = 0;
  size_t place = 0;   // in its list
  std::string error;  // why it was left out
};

// evals/panel-STEP.jsonl
struct PanelEval {
  uint32_t step = 0;
  std::vector<Game> games;     // played; at least one
  std::vector<Game> left_out;  // of the means
  double success_rate() const;
  double turns() const;
};

// evals/POLICY-SPLIT.jsonl, which deploy/up.sh leaves.
struct NamedEval {
  std::string policy;
  std::string split;
  std::vector<Game> games;  // played; at least one
  std::vector<Game> left_out;
};

// Means over a step's turns at one position.
struct TurnCell {
  int samples = 0;
  double d = 0, h = 0, w = 0;
};

// One step's cells by turn position, from its side file.
struct TurnColumn {
  uint32_t step = 0;
  std::vector<TurnCell> turns;
};

// diagnose/NAME.jsonl of `atod diagnose`.
struct DiagnosisRow {
  double turn = 0, samples = 0;
  double d = 0, d_stderr = 0, h = 0, h_stderr = 0, w = 0, w_stderr = 0;
};
struct DiagnosisFile {
  std::string name;
  std::string description;
  std::vector<DiagnosisRow> turns;
};

struct ShownToken {
  std::string text;  // empty when no tokenizer was found
  double advantage = 0;
};
struct ShownTurn {
  uint32_t index = 0;
  bool trainable = true, valid = false, admissible = false;
  std::string observation, text, action;
  bool weighed = false;  // d, h, w and tokens are known
  double d = 0, h = 0, w = 0;
  std::vector<ShownToken> tokens;
  // The environment took another action than the text's own words.
  bool executed_differs() const {
    return !action.empty() && text.find(action) == std::string::npos;
  }
};
struct ShownTrajectory {
  uint32_t step = 0;
  std::string id, task, category, done, worker;
  bool success = false;
  double reward = 0, grpo_advantage = 0;
  std::vector<ShownTurn> turns;
};

struct RunData {
  std::string dir;
  std::string name;
  // Dotted key of config.resolved.yaml to its value as written there.
  std::map<std::string, std::string> config;
  std::vector<StepRow> steps;    // ascending
  int repeated_steps = 0;        // lines of metrics.jsonl for a step again
  std::vector<PanelEval> panel;  // ascending
  std::vector<NamedEval> evals;
  std::vector<TurnColumn> columns;  // at most kMaxColumns, evenly over the run
  size_t recorded_columns = 0;      // steps that the columns are picked from
  std::vector<DiagnosisFile> diagnoses;  // before training first
  std::vector<ShownTrajectory> trajectories;
  std::string teacher_hash;  // of the scores that it trained with
  // What of the spool could not be read, one sentence a file.
  std::vector<std::string> damage;
  // seconds.json and games.txt of deploy/up.sh: what the machine took to make
  // games and models, and what the games are.
  double cores = 0, prepare_seconds = 0;  // 0 where there is no such file
  std::string games;

  // Whether any token that trained had a teacher's score.
  bool has_teacher() const;
  std::string key(const std::string& path,
                  const std::string& otherwise = "") const;
  double number(const std::string& path, double otherwise) const;
  // (step, value) of every step that has the tag.
  std::vector<std::pair<double, double>> series(const std::string& tag) const;
};

inline constexpr size_t kMaxColumns = 60;

// INVALID_ARGUMENT or NOT_FOUND in one line for a folder that is not a run or a
// file in it that cannot be read.
absl::StatusOr<RunData> ReadRun(const std::string& dir);

// Dotted keys of YAML with their values as text; INVALID_ARGUMENT names `path`
// and the line of what is no YAML. Not config::LoadRunConfig, which takes the
// keys of today alone: a report is also of runs that older programs made.
absl::StatusOr<std::map<std::string, std::string>> FlattenConfig(
    const std::string& yaml, const std::string& path);

// "step 3", "steps 3, 7", of many the first.
std::string Steps(const std::vector<uint32_t>& steps);

// Up to `most` of `steps`, evenly spread, first and last among them.
std::vector<uint32_t> Spread(const std::vector<uint32_t>& steps, size_t most);

}  // namespace atod::report
