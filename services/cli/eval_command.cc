#include "services/cli/eval_command.h"

#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/metrics/metrics.h"
#include "common/model/threads.h"
#include "common/tokenizer/tokenizer.h"
#include "nlohmann/json.hpp"
#include "services/cli/command.h"
#include "services/envs/alfworld/alfworld_environment.h"
#include "services/envs/games/policies.h"
#include "services/envs/local_caller.h"
#include "services/learner/task_source.h"
#include "services/rollout/agent_loop.h"
#include "services/rollout/engine.h"

namespace atod::cli {
namespace {

struct Flags {
  std::string model;
  std::string policy;
  std::string games;
  std::string split = "valid_seen";
  std::string prompt_set = "compact";
  std::string label;
  std::string out;
  uint32_t count = 300;
  uint64_t seed = 7;
  uint32_t max_turns = 20;
  uint32_t history_length = 2;
  uint32_t max_tokens = 14;
  uint32_t max_context = 160;
  uint32_t slots = 128;
  uint32_t threads = 0;
  double temperature = 0.4;
};

struct GameResult {
  envs::TaskInfo task;
  bool success = false;
  uint32_t length = 0;
  float reward = 0;
};

using Tasks = std::vector<envs::TaskInfo>;

absl::StatusOr<Tasks> ChooseTasks(const envs::Environment& env,
                                  const Flags& flags) {
  for (const envs::SplitInfo& split : env.description().splits) {
    if (split.name != flags.split) continue;
    Tasks tasks;
    for (const uint32_t index :
         learner::MakePanel(flags.seed, split.size, flags.count)) {
      ATOD_ASSIGN_OR_RETURN(envs::TaskInfo task,
                            env.GetTask(flags.split, index));
      tasks.push_back(std::move(task));
    }
    if (!tasks.empty()) return tasks;
  }
  return BadInput(
      {flags.games, "--split", 0, flags.split, "a sub-folder with games"});
}

// Noise and scripted choices of a task depend on the task, not on its place in
// the list or on what is played beside it.
uint64_t TaskSeed(uint64_t seed, size_t i) {
  return MixSeed(seed, i, 0x6576616c);
}

absl::StatusOr<std::vector<GameResult>> PlayScripted(
    const envs::Environment& env, const Tasks& tasks, const Flags& flags) {
  std::vector<GameResult> results;
  for (size_t i = 0; i < tasks.size(); ++i) {
    ATOD_ASSIGN_OR_RETURN(
        const std::unique_ptr<games::Policy> policy,
        games::MakePolicy(flags.policy, TaskSeed(flags.seed, i)));
    ATOD_ASSIGN_OR_RETURN(
        const std::unique_ptr<envs::Episode> episode,
        env.Start({flags.split, tasks[i].task_id, TaskSeed(flags.seed, i),
                   flags.max_turns}));
    GameResult result{tasks[i]};
    while (!episode->observation().done) {
      const std::string action = policy->Act(episode->observation());
      result.reward += episode->StepAction(action).observation.reward;
    }
    result.success = episode->observation().success;
    result.length = episode->observation().turn_index;
    results.push_back(std::move(result));
  }
  return results;
}

absl::StatusOr<std::vector<GameResult>> PlayModel(
    std::shared_ptr<const envs::Environment> env, const Tasks& tasks,
    const Flags& flags) {
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        Tokenizer::Load(flags.model));
  rollout::EngineOptions engine_options;
  engine_options.model.max_slots = static_cast<int>(flags.slots);
  engine_options.model.max_context = flags.max_context;
  if (tokenizer->eos_id()) engine_options.stop_tokens = {*tokenizer->eos_id()};
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<rollout::ModelEngine> engine,
                        rollout::MakeEngine(flags.model, engine_options));
  const std::string name = env->description().name;
  envs::LocalCaller caller({{name, std::move(env)}});
  RealClock clock;
  metrics::Registry registry;
  rollout::AgentLoop loop(*engine, caller, *tokenizer, nullptr, clock, registry,
                          {.slots = flags.slots,
                           .max_context = flags.max_context,
                           .nonce = "eval"});
  std::vector<GameResult> results(tasks.size());
  size_t started = 0, finished = 0;
  while (finished < tasks.size()) {
    for (; started < tasks.size() && loop.free_slots() > 0; ++started) {
      rollout::EpisodeSpec spec;
      spec.run_id = "eval";
      spec.group = static_cast<uint32_t>(started);
      spec.purpose = rollout::Purpose::kEval;
      spec.env = name;
      spec.split = flags.split;
      spec.task_id = tasks[started].task_id;
      spec.env_seed = TaskSeed(flags.seed, started);
      spec.run_seed = flags.seed;
      spec.sampling = {static_cast<float>(flags.temperature), 1, 0,
                       flags.max_tokens};
      spec.max_turns = flags.max_turns;
      ATOD_RETURN_IF_ERROR(loop.Add(std::move(spec)));
    }
    ATOD_ASSIGN_OR_RETURN(std::vector<rollout::EpisodeRecord> records,
                          loop.Poll(absl::Seconds(10)));
    for (const rollout::EpisodeRecord& record : records) {
      ATOD_RETURN_IF_ERROR(record.status);
      results[record.spec.group] = {tasks[record.spec.group], record.success,
                                    static_cast<uint32_t>(record.turns.size()),
                                    record.reward};
      ++finished;
    }
  }
  return results;
}

// 95 % interval of a proportion (Wilson).
std::pair<double, double> Wilson(double wins, double n) {
  const double z = 1.96, p = wins / n;
  const double mid = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half =
      z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n);
  return {mid - half, mid + half};
}

absl::Status WriteResults(const std::vector<GameResult>& results,
                          const std::string& path) {
  std::string out;
  for (const GameResult& r : results)
    absl::StrAppend(&out,
                    nlohmann::json{{"task_id", r.task.task_id},
                                   {"category", r.task.category},
                                   {"success", r.success},
                                   {"length", r.length},
                                   {"reward", r.reward}}
                        .dump(),
                    "\n");
  return WriteFileAtomic(path, out);
}

absl::StatusOr<int> Eval(const Flags& flags) {
  if (flags.model.empty() == flags.policy.empty())
    return BadInput({"eval", "--model, --policy", 0,
                     flags.model.empty() ? "neither" : "both", "one of them"});
  model::SetComputeThreads(flags.threads);
  envs::AlfworldOptions env_options;
  env_options.data = flags.games;
  env_options.prompt_set = flags.prompt_set;
  env_options.history_length = flags.history_length;
  env_options.max_turns = flags.max_turns;
  ATOD_ASSIGN_OR_RETURN(std::unique_ptr<envs::AlfworldEnvironment> opened,
                        envs::AlfworldEnvironment::Open(env_options));
  const std::shared_ptr<const envs::Environment> env = std::move(opened);
  ATOD_ASSIGN_OR_RETURN(const Tasks tasks, ChooseTasks(*env, flags));
  ATOD_ASSIGN_OR_RETURN(const std::vector<GameResult> results,
                        flags.model.empty() ? PlayScripted(*env, tasks, flags)
                                            : PlayModel(env, tasks, flags));
  double wins = 0, turns = 0;
  std::map<std::string, std::pair<int, int>> by_type;  // wins, games
  for (const GameResult& r : results) {
    wins += r.success;
    turns += r.length;
    by_type[r.task.category].first += r.success;
    by_type[r.task.category].second += 1;
  }
  const double n = static_cast<double>(results.size());
  const auto [low, high] = Wilson(wins, n);
  std::string line = absl::StrFormat(
      "%s %s: success %.1f %% [%.1f, %.1f] of %d games, %.1f turns",
      flags.label.empty() ? flags.model + flags.policy : flags.label,
      flags.split, 100 * wins / n, 100 * low, 100 * high, results.size(),
      turns / n);
  for (const auto& [type, count] : by_type)
    absl::StrAppendFormat(&line, "  %s %d/%d", type, count.first, count.second);
  std::puts(line.c_str());
  if (!flags.out.empty())
    ATOD_RETURN_IF_ERROR(WriteResults(results, flags.out));
  return 0;
}

}  // namespace

void AddEvalCommand(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* sub =
      AddCommand(app, "eval", "play a fixed list of tasks and count successes",
                 [=] { return Eval(*flags); });
  sub->add_option("--model", flags->model, "folder of the model that plays");
  sub->add_option("--policy", flags->policy, "what plays without a model")
      ->check(CLI::IsMember({"random", "planner"}));
  sub->add_option("--games", flags->games, "folder with a sub-folder a split")
      ->required();
  sub->add_option("--split", flags->split, "split to play")
      ->capture_default_str();
  sub->add_option("--count", flags->count, "number of games")
      ->capture_default_str();
  sub->add_option("--seed", flags->seed, "which games, and the noise")
      ->capture_default_str();
  sub->add_option("--temperature", flags->temperature, "0 is greedy")
      ->capture_default_str();
  sub->add_option("--prompt-set", flags->prompt_set, "prompt templates")
      ->capture_default_str();
  sub->add_option("--history-length", flags->history_length,
                  "turns in the history window")
      ->capture_default_str();
  sub->add_option("--max-turns", flags->max_turns, "turn limit")
      ->capture_default_str();
  sub->add_option("--max-tokens", flags->max_tokens, "longest response, tokens")
      ->capture_default_str();
  sub->add_option("--max-context", flags->max_context,
                  "longest prompt and response, tokens")
      ->capture_default_str();
  sub->add_option("--slots", flags->slots, "games played at once")
      ->capture_default_str();
  sub->add_option("--threads", flags->threads, "compute threads; 0: all cores");
  sub->add_option("--label", flags->label, "name in the printed line");
  sub->add_option("--out", flags->out, "JSONL with one line a game");
}

}  // namespace atod::cli
