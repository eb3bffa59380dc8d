#include "services/envs/env_convert.h"

namespace atod::envs {
namespace {

// Left-out tasks that travel by name.
constexpr int kLeftOutNamed = 20;

}  // namespace

v1::PromptSpec ToProto(const PromptSpec& spec) {
  v1::PromptSpec out;
  out.set_name(spec.name);
  out.set_first(spec.first);
  out.set_next(spec.next);
  out.set_history_line(spec.history_line);
  out.set_history_join(spec.history_join);
  out.set_window(spec.window);
  out.set_overflow(static_cast<v1::PromptSpec::Overflow>(spec.overflow));
  out.set_admissible_item(spec.admissible_item);
  out.set_admissible_join(spec.admissible_join);
  for (const std::string& action : spec.admissible_hidden)
    out.add_admissible_hidden(action);
  out.set_chat(spec.chat);
  out.set_max_prompt_tokens(spec.max_prompt_tokens);
  out.set_max_prompt_chars(spec.max_prompt_chars);
  out.set_grow(spec.grow);
  return out;
}

v1::EnvDescription ToProto(const EnvDescription& description) {
  v1::EnvDescription out;
  out.set_name(description.name);
  out.set_version(description.version);
  out.set_deterministic(description.deterministic);
  for (const SplitInfo& split : description.splits) {
    v1::Split& s = *out.add_splits();
    s.set_name(split.name);
    s.set_size(split.size);
    s.set_content_hash(split.content_hash);
    s.set_left_out(split.left_out);
  }
  out.set_default_max_turns(description.default_max_turns);
  out.set_success_threshold(description.success_threshold);
  for (const std::string& category : description.categories)
    out.add_categories(category);
  *out.mutable_prompt() = ToProto(description.prompt);
  for (const LeftOut& task : description.left_out) {
    if (out.left_out_size() == kLeftOutNamed) break;
    v1::LeftOut& o = *out.add_left_out();
    o.set_split(task.split);
    o.set_path(task.path);
    o.set_reason(task.reason);
  }
  out.set_left_out_total(description.left_out_total);
  return out;
}

v1::Task ToProto(const TaskInfo& task) {
  v1::Task out;
  out.set_task_id(task.task_id);
  out.set_category(task.category);
  out.set_source(task.source);
  out.set_content_hash(task.content_hash);
  return out;
}

v1::Observation ToProto(const Observation& observation) {
  v1::Observation out;
  out.set_turn_index(observation.turn_index);
  out.set_text(observation.text);
  out.set_task(observation.task);
  for (const std::string& action : observation.admissible)
    out.add_admissible(action);
  out.mutable_fields()->insert(observation.fields.begin(),
                               observation.fields.end());
  out.set_anchor(observation.anchor);
  out.set_reward(observation.reward);
  out.set_task_score(observation.task_score);
  out.set_success(observation.success);
  out.set_done(observation.done);
  out.set_done_reason(static_cast<v1::DoneReason>(observation.done_reason));
  out.mutable_metrics()->insert(observation.metrics.begin(),
                                observation.metrics.end());
  out.set_category(observation.category);
  return out;
}

v1::StepReply ToProto(const StepResult& result) {
  v1::StepReply out;
  out.set_executed_action(result.executed_action);
  out.set_action_valid(result.action_valid);
  out.set_action_admissible(result.action_admissible);
  *out.mutable_observation() = ToProto(result.observation);
  return out;
}

v1::ResetRequest ToProto(const ResetRequest& request) {
  v1::ResetRequest out;
  out.set_request_id(request.request_id);
  out.set_env(request.env);
  out.set_split(request.options.split);
  out.set_task_id(request.options.task_id);
  out.set_seed(request.options.seed);
  out.set_max_turns(request.options.max_turns);
  for (const std::string& action : request.replay_actions)
    out.add_replay_actions(action);
  out.set_content_hash(request.content_hash);
  return out;
}

v1::ResetReply ToProto(const ResetResult& result) {
  v1::ResetReply out;
  out.set_episode_id(result.episode_id);
  *out.mutable_first() = ToProto(result.first);
  for (const StepResult& step : result.replayed)
    *out.add_replayed() = ToProto(step);
  *out.mutable_observation() = result.replayed.empty()
                                   ? out.first()
                                   : out.replayed().rbegin()->observation();
  return out;
}

PromptSpec FromProto(const v1::PromptSpec& spec) {
  PromptSpec out;
  out.name = spec.name();
  out.first = spec.first();
  out.next = spec.next();
  out.history_line = spec.history_line();
  out.history_join = spec.history_join();
  out.window = spec.window();
  out.overflow = static_cast<PromptSpec::Overflow>(spec.overflow());
  out.admissible_item = spec.admissible_item();
  out.admissible_join = spec.admissible_join();
  out.admissible_hidden.assign(spec.admissible_hidden().begin(),
                               spec.admissible_hidden().end());
  out.chat = spec.chat();
  out.max_prompt_tokens = spec.max_prompt_tokens();
  out.max_prompt_chars = spec.max_prompt_chars();
  out.grow = spec.grow();
  return out;
}

EnvDescription FromProto(const v1::EnvDescription& description) {
  EnvDescription out;
  out.name = description.name();
  out.version = description.version();
  out.deterministic = description.deterministic();
  for (const v1::Split& split : description.splits())
    out.splits.push_back(
        {split.name(), split.size(), split.content_hash(), split.left_out()});
  out.default_max_turns = description.default_max_turns();
  out.success_threshold = description.success_threshold();
  out.categories.assign(description.categories().begin(),
                        description.categories().end());
  out.prompt = FromProto(description.prompt());
  for (const v1::LeftOut& task : description.left_out())
    out.left_out.push_back({task.split(), task.path(), task.reason()});
  out.left_out_total = description.left_out_total();
  return out;
}

TaskInfo FromProto(const v1::Task& task) {
  return {task.task_id(), task.category(), task.source(), task.content_hash()};
}

Observation FromProto(const v1::Observation& observation) {
  Observation out;
  out.turn_index = observation.turn_index();
  out.text = observation.text();
  out.task = observation.task();
  out.admissible.assign(observation.admissible().begin(),
                        observation.admissible().end());
  out.fields.insert(observation.fields().begin(), observation.fields().end());
  out.anchor = observation.anchor();
  out.reward = observation.reward();
  out.task_score = observation.task_score();
  out.success = observation.success();
  out.done = observation.done();
  out.done_reason = static_cast<DoneReason>(observation.done_reason());
  out.metrics.insert(observation.metrics().begin(),
                     observation.metrics().end());
  out.category = observation.category();
  return out;
}

StepResult FromProto(const v1::StepReply& reply) {
  StepResult out;
  out.executed_action = reply.executed_action();
  out.action_valid = reply.action_valid();
  out.action_admissible = reply.action_admissible();
  out.observation = FromProto(reply.observation());
  return out;
}

ResetRequest FromProto(const v1::ResetRequest& request) {
  ResetRequest out;
  out.request_id = request.request_id();
  out.env = request.env();
  out.options = {.split = request.split(),
                 .task_id = request.task_id(),
                 .seed = request.seed(),
                 .max_turns = request.max_turns()};
  out.replay_actions.assign(request.replay_actions().begin(),
                            request.replay_actions().end());
  out.content_hash = request.content_hash();
  return out;
}

ResetResult FromProto(const v1::ResetReply& reply) {
  ResetResult out;
  out.episode_id = reply.episode_id();
  out.first = FromProto(reply.first());
  for (const v1::StepReply& step : reply.replayed())
    out.replayed.push_back(FromProto(step));
  return out;
}

}  // namespace atod::envs
