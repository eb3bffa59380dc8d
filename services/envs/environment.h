#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/prompt/prompt_spec.h"

namespace atod::envs {

// The C++ side of EnvService, one to one with proto/atod/v1/env.proto, where
// every field is documented.

enum class DoneReason { kNotDone, kWon, kEnded, kLimit, kError };

struct Observation {
  uint32_t turn_index = 0;
  std::string text;
  std::string task;
  std::vector<std::string> admissible;
  std::map<std::string, std::string> fields;
  std::string anchor;
  float reward = 0;
  float task_score = 0;
  bool success = false;
  bool done = false;
  DoneReason done_reason = DoneReason::kNotDone;
  std::map<std::string, float> metrics;
  std::string category;
};

struct StepResult {
  std::string executed_action;
  bool action_valid = false;
  bool action_admissible = false;
  Observation observation;
};

struct TaskInfo {
  std::string task_id;
  std::string category;
  std::string source;
  std::string content_hash;
};

struct SplitInfo {
  std::string name;
  uint32_t size = 0;
  std::string content_hash;
  uint32_t left_out = 0;  // tasks on disk that are not played
};

// A task on disk that is not played.
struct LeftOut {
  std::string split;
  std::string path;  // below the environment's data
  std::string reason;
};

struct EnvDescription {
  std::string name;
  std::string version;
  bool deterministic = true;
  std::vector<SplitInfo> splits;
  uint32_t default_max_turns = 50;
  float success_threshold = 1;
  std::vector<std::string> categories;
  PromptSpec prompt;
  std::vector<LeftOut> left_out;  // all of them; over the wire the first
  uint32_t left_out_total = 0;
};

// "3 tasks left out: A (why), B (why), …" for people, of one split or, with an
// empty name, of all; empty when nothing was left out.
std::string LeftOutText(const EnvDescription& env, std::string_view split);

// One episode. Not thread-safe: one caller at a time.
class Episode {
 public:
  virtual ~Episode() = default;
  // What the agent sees now (after the reset or the last turn).
  virtual const Observation& observation() const = 0;
  // One turn with the model's text, projected by the environment. After
  // `done` it returns the last result unchanged.
  virtual StepResult StepText(std::string_view model_text) = 0;
  // One turn with an action as such.
  virtual StepResult StepAction(std::string_view action) = 0;
};

struct EpisodeOptions {
  std::string split;
  std::string task_id;
  uint64_t seed = 0;
  uint32_t max_turns = 0;  // 0: default
};

// A set of tasks and the way to play them. Thread-safe.
class Environment {
 public:
  virtual ~Environment() = default;
  virtual const EnvDescription& description() const = 0;
  // NOT_FOUND for an unknown split or an index past its end.
  virtual absl::StatusOr<TaskInfo> GetTask(std::string_view split,
                                           uint32_t index) const = 0;
  virtual absl::StatusOr<std::unique_ptr<Episode>> Start(
      const EpisodeOptions& options) const = 0;
};

}  // namespace atod::envs
