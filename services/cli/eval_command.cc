#include "services/cli/eval_command.h"

#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/model/threads.h"
#include "common/tokenizer/tokenizer.h"
#include "nlohmann/json.hpp"
#include "services/cli/command.h"
#include "services/envs/alfworld/alfworld_environment.h"
#include "services/envs/games/policies.h"
#include "services/envs/local_caller.h"
#include "services/learner/task_source.h"
#include "services/rollout/engine.h"
#include "services/rollout/evaluate.h"

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

using Tasks = std::vector<rollout::EvalTask>;
using Results = std::vector<rollout::EvalResult>;

// Noise and scripted choices of a task depend on the task, not on its place in
// the list or on what is played beside it.
uint64_t TaskSeed(uint64_t seed, size_t i) {
  return MixSeed(seed, i, 0x6576616c);
}

absl::StatusOr<Tasks> ChooseTasks(const envs::Environment& env,
                                  const Flags& flags) {
  for (const envs::SplitInfo& split : env.description().splits) {
    if (split.name != flags.split) continue;
    Tasks tasks;
    for (const uint32_t index :
         learner::MakePanel(flags.seed, split.size, flags.count)) {
      ATOD_ASSIGN_OR_RETURN(envs::TaskInfo task,
                            env.GetTask(flags.split, index));
      tasks.push_back(
          {std::move(task.task_id), TaskSeed(flags.seed, tasks.size())});
    }
    if (!tasks.empty()) return tasks;
  }
  return BadInput(
      {flags.games, "--split", 0, flags.split, "a sub-folder with games"});
}

rollout::EvalOptions OptionsOf(const envs::Environment& env,
                               const Flags& flags) {
  rollout::EvalOptions options;
  options.env = env.description().name;
  options.split = flags.split;
  options.max_turns = flags.max_turns;
  options.sampling = {static_cast<float>(flags.temperature), 1, 0,
                      flags.max_tokens};
  options.run_seed = flags.seed;
  options.slots = flags.slots;
  options.max_context = flags.max_context;
  return options;
}

absl::StatusOr<Results> PlayScripted(const envs::Environment& env,
                                     const Tasks& tasks, const Flags& flags) {
  ATOD_RETURN_IF_ERROR(games::MakePolicy(flags.policy, 0).status());
  const auto make = [&flags](size_t i) -> rollout::Player {
    std::shared_ptr<games::Policy> policy =
        *games::MakePolicy(flags.policy, TaskSeed(flags.seed, i));
    return
        [policy](const envs::Observation& seen) { return policy->Act(seen); };
  };
  return rollout::EvaluatePlayers(env, make, tasks, OptionsOf(env, flags));
}

absl::StatusOr<Results> PlayModel(std::shared_ptr<const envs::Environment> env,
                                  const Tasks& tasks, const Flags& flags) {
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        Tokenizer::Load(flags.model));
  rollout::EngineOptions engine_options;
  engine_options.model.max_slots = static_cast<int>(flags.slots);
  engine_options.model.max_context = flags.max_context;
  if (tokenizer->eos_id()) engine_options.stop_tokens = {*tokenizer->eos_id()};
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<rollout::ModelEngine> engine,
                        rollout::MakeEngine(flags.model, engine_options));
  const rollout::EvalOptions options = OptionsOf(*env, flags);
  envs::LocalCaller caller({{options.env, std::move(env)}});
  return rollout::EvaluateModel(*engine, caller, *tokenizer, tasks, options);
}

// 95 % interval of a proportion (Wilson).
std::pair<double, double> Wilson(double wins, double n) {
  const double z = 1.96, p = wins / n;
  const double mid = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half =
      z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n);
  return {mid - half, mid + half};
}

absl::Status WriteResults(const Results& results, const std::string& path) {
  std::string out;
  for (const rollout::EvalResult& r : results)
    absl::StrAppend(&out,
                    nlohmann::json{{"task_id", r.task_id},
                                   {"category", r.category},
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
  ATOD_ASSIGN_OR_RETURN(const Results results,
                        flags.model.empty() ? PlayScripted(*env, tasks, flags)
                                            : PlayModel(env, tasks, flags));
  double wins = 0, turns = 0;
  std::map<std::string, std::pair<int, int>> by_type;  // wins, games
  for (const rollout::EvalResult& r : results) {
    wins += r.success;
    turns += r.length;
    by_type[r.category].first += r.success;
    by_type[r.category].second += 1;
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
