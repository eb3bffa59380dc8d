#include "services/rollout/evaluate.h"

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/metrics/metrics.h"
#include "services/rollout/agent_loop.h"

namespace atod::rollout {

EvalResult ResultOf(const v1::Trajectory& played) {
  EvalResult result;
  result.task_id = played.task().task_id();
  result.category = played.task().category();
  result.success = played.outcome().success();
  result.reward = played.outcome().reward();
  result.score = played.outcome().score();
  result.length = played.outcome().length();
  for (const v1::Turn& turn : played.turns())
    result.invalid_turns += !turn.valid();
  result.error = played.outcome().error().kind();
  result.error_message = played.outcome().error().message();
  return result;
}

absl::StatusOr<std::vector<v1::Trajectory>> PlayTasks(
    engine::Engine& engine, envs::EnvCaller& envs, const Tokenizer& tokenizer,
    const std::vector<EvalTask>& tasks, const EvalOptions& options) {
  RealClock clock;
  metrics::Registry registry;
  AgentLoop loop(engine, envs, tokenizer, nullptr, clock, registry,
                 {.slots = options.slots,
                  .max_context = options.max_context,
                  .nonce = "eval"});
  std::vector<v1::Trajectory> played(tasks.size());
  size_t next = 0;
  size_t finished = 0;
  while (finished < tasks.size()) {
    for (; next < tasks.size() && loop.free_slots() > 0; ++next) {
      Assignment play;
      v1::Lease& lease = play.lease;
      lease.set_lease_id(next);
      lease.set_step(options.step);
      lease.set_group(static_cast<uint32_t>(next));
      lease.set_purpose(v1::EVAL);
      lease.set_env(options.env);
      lease.set_split(options.split);
      lease.set_task_id(tasks[next].task_id);
      lease.set_env_seed(tasks[next].env_seed);
      lease.set_run_seed(options.run_seed);
      lease.mutable_sampling()->set_temperature(options.sampling.temperature);
      lease.mutable_sampling()->set_top_p(options.sampling.top_p);
      lease.mutable_sampling()->set_top_k(options.sampling.top_k);
      lease.mutable_sampling()->set_max_tokens(options.sampling.max_tokens);
      lease.set_max_turns(options.max_turns);
      lease.set_layout(options.layout);
      ATOD_RETURN_IF_ERROR(loop.Add(std::move(play)));
    }
    ATOD_ASSIGN_OR_RETURN(std::vector<v1::Trajectory> finished_now,
                          loop.Poll(absl::InfiniteDuration()));
    for (v1::Trajectory& t : finished_now) {
      played[t.id().group()] = std::move(t);
      ++finished;
    }
  }
  return played;
}

absl::StatusOr<std::vector<EvalResult>> EvaluateModel(
    engine::Engine& engine, envs::EnvCaller& envs, const Tokenizer& tokenizer,
    const std::vector<EvalTask>& tasks, const EvalOptions& options) {
  ATOD_ASSIGN_OR_RETURN(const std::vector<v1::Trajectory> played,
                        PlayTasks(engine, envs, tokenizer, tasks, options));
  std::vector<EvalResult> results;
  for (const v1::Trajectory& t : played) results.push_back(ResultOf(t));
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
    EvalResult& result = results.emplace_back();
    result.task_id = tasks[i].task_id;
    const absl::StatusOr<std::unique_ptr<envs::Episode>> started =
        env.Start({.split = options.split,
                   .task_id = tasks[i].task_id,
                   .seed = tasks[i].env_seed,
                   .max_turns = max_turns});
    if (!started.ok()) {
      result.error = "task";
      result.error_message = std::string(started.status().message());
      continue;
    }
    envs::Episode* const episode = started->get();
    const Player player = make(i);
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
    if (episode->observation().done_reason == envs::DoneReason::kError) {
      result.error = "environment";
      result.error_message = episode->observation().text;
    }
  }
  return results;
}

double SuccessRate(const std::vector<EvalResult>& results) {
  size_t played = 0, wins = 0;
  for (const EvalResult& r : results) {
    if (!r.error.empty()) continue;
    ++played;
    wins += r.success;
  }
  return played == 0 ? 0
                     : static_cast<double>(wins) / static_cast<double>(played);
}

ErrorCount CountErrors(const std::vector<EvalResult>& results) {
  ErrorCount out;
  std::map<std::string, size_t> kinds;
  for (const EvalResult& r : results) {
    if (r.error.empty()) continue;
    if (out.episodes++ == 0)
      out.first = absl::StrCat(r.task_id, ": ", r.error, ": ", r.error_message);
    ++kinds[r.error];
  }
  for (const auto& [kind, count] : kinds)
    absl::StrAppend(&out.kinds, out.kinds.empty() ? "" : ", ", kind, " ",
                    count);
  return out;
}

}  // namespace atod::rollout
