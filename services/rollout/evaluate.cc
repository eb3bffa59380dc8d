#include "services/rollout/evaluate.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/metrics/metrics.h"
#include "services/rollout/agent_loop.h"

namespace atod::rollout {
EvalResult ResultOf(const EpisodeRecord& record) {
  EvalResult result;
  result.task_id = record.spec.task_id;
  result.category = record.category;
  result.success = record.success;
  result.reward = record.reward;
  result.score = record.score;
  result.length = static_cast<uint32_t>(record.turns.size());
  for (const TurnRecord& turn : record.turns) {
    result.invalid_turns += !turn.valid;
  }
  return result;
}

absl::StatusOr<std::vector<EpisodeRecord>> PlayTasks(
    Engine& engine, envs::EnvCaller& envs, const Tokenizer& tokenizer,
    const std::vector<EvalTask>& tasks, const EvalOptions& options) {
  RealClock clock;
  metrics::Registry registry;
  AgentLoop loop(engine, envs, tokenizer, nullptr, clock, registry,
                 {.slots = options.slots,
                  .max_context = options.max_context,
                  .nonce = "eval"});
  std::vector<EpisodeRecord> played(tasks.size());
  size_t next = 0;
  size_t finished = 0;
  while (finished < tasks.size()) {
    for (; next < tasks.size() && loop.free_slots() > 0; ++next) {
      EpisodeSpec spec;
      spec.lease_id = next;
      spec.step = options.step;
      spec.group = static_cast<uint32_t>(next);
      spec.purpose = Purpose::kEval;
      spec.env = options.env;
      spec.split = options.split;
      spec.task_id = tasks[next].task_id;
      spec.env_seed = tasks[next].env_seed;
      spec.run_seed = options.run_seed;
      spec.sampling = options.sampling;
      spec.max_turns = options.max_turns;
      ATOD_RETURN_IF_ERROR(loop.Add(std::move(spec)));
    }
    ATOD_ASSIGN_OR_RETURN(std::vector<EpisodeRecord> records,
                          loop.Poll(absl::InfiniteDuration()));
    for (EpisodeRecord& record : records) {
      ATOD_RETURN_IF_ERROR(record.status);
      played[record.spec.group] = std::move(record);
      ++finished;
    }
  }
  return played;
}

absl::StatusOr<std::vector<EvalResult>> EvaluateModel(
    Engine& engine, envs::EnvCaller& envs, const Tokenizer& tokenizer,
    const std::vector<EvalTask>& tasks, const EvalOptions& options) {
  ATOD_ASSIGN_OR_RETURN(const std::vector<EpisodeRecord> played,
                        PlayTasks(engine, envs, tokenizer, tasks, options));
  std::vector<EvalResult> results;
  for (const EpisodeRecord& record : played)
    results.push_back(ResultOf(record));
  return results;
}

absl::StatusOr<std::vector<EvalResult>> EvaluatePlayers(
    const envs::Environment& env,
    const std::function<Player(size_t index)>& make,
    const std::vector<EvalTask>& tasks, const EvalOptions& options) {
  const uint32_t max_turns = options.max_turns > 0
                                 ? options.max_turns
                                 : env.description().default_max_turns;
  std::vector<EvalResult> results;
  for (size_t i = 0; i < tasks.size(); ++i) {
    ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<envs::Episode> episode,
                          env.Start({.split = options.split,
                                     .task_id = tasks[i].task_id,
                                     .seed = tasks[i].env_seed,
                                     .max_turns = max_turns}));
    const Player player = make(i);
    EvalResult& result = results.emplace_back();
    result.task_id = tasks[i].task_id;
    result.category = episode->observation().category;
    while (!episode->observation().done && result.length < max_turns) {
      const envs::StepResult step =
          episode->StepAction(player(episode->observation()));
      ++result.length;
      result.invalid_turns += !step.action_valid;
      result.reward += step.observation.reward;
    }
    result.success = episode->observation().success;
    result.score = episode->observation().task_score;
  }
  return results;
}

double SuccessRate(const std::vector<EvalResult>& results) {
  if (results.empty()) return 0;
  return static_cast<double>(
             std::count_if(results.begin(), results.end(),
                           [](const EvalResult& r) { return r.success; })) /
         static_cast<double>(results.size());
}

}  // namespace atod::rollout
