#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "atod/v1/trajectory.pb.h"
#include "common/engine/engine.h"
#include "common/tokenizer/tokenizer.h"
#include "services/envs/env_caller.h"
#include "services/envs/environment.h"

namespace atod::rollout {

struct EvalTask {
  std::string task_id;
  uint64_t env_seed = 0;
};

struct EvalOptions {
  std::string env;
  std::string split;
  std::string layout = "windowed";  // RunConfig.layout
  uint32_t max_turns = 0;           // 0: the environment's default
  // Of the model; a policy needs none of these.
  engine::SamplingParams sampling;
  uint64_t run_seed = 0;  // with `step`, keys the noise; group = task's index
  uint32_t step = 0;
  size_t slots = 64;
  uint32_t max_context = 0;
};

struct EvalResult {
  std::string task_id;
  std::string category;
  bool success = false;
  float reward = 0;
  float score = 0;
  uint32_t length = 0;         // turns played
  uint32_t invalid_turns = 0;  // without a well-formed action
  // An error is no loss: it enters no rate.
  std::string error;  // its kind, as in EpisodeError; empty: none
  std::string error_message;
};

// Plays each task once with the model, in this process; trajectories in the
// order of the tasks. The noise makes them a function of weights and options
// alone. An episode that fails is one with an error; an error returned is of
// the engine, or of options that nothing can be played with.
absl::StatusOr<std::vector<v1::Trajectory>> PlayTasks(
    engine::Engine& engine, envs::EnvCaller& envs, const Tokenizer& tokenizer,
    const std::vector<EvalTask>& tasks, const EvalOptions& options);

// What became of an episode.
EvalResult ResultOf(const v1::Trajectory& played);

// PlayTasks for those who want the results alone.
absl::StatusOr<std::vector<EvalResult>> EvaluateModel(
    engine::Engine& engine, envs::EnvCaller& envs, const Tokenizer& tokenizer,
    const std::vector<EvalTask>& tasks, const EvalOptions& options);

// One player of one episode: what it sees to what it does.
using Player = std::function<std::string(const envs::Observation&)>;

// The same with scripted players; `make` gives each task, by its index, a
// player of its own.
absl::StatusOr<std::vector<EvalResult>> EvaluatePlayers(
    const envs::Environment& env,
    const std::function<Player(size_t index)>& make,
    const std::vector<EvalTask>& tasks, const EvalOptions& options);

// Share of the results without an error that are successes; 0 for none.
double SuccessRate(const std::vector<EvalResult>& results);

// The results that ended in errors.
struct ErrorCount {
  size_t episodes = 0;
  std::string kinds;  // "prompt 3, task 1"
  std::string first;  // "TASK: KIND: MESSAGE" of the first one
};
ErrorCount CountErrors(const std::vector<EvalResult>& results);

}  // namespace atod::rollout
