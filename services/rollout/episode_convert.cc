#include "services/rollout/episode_convert.h"

namespace atod::rollout {
namespace {

Purpose FromProto(v1::Purpose purpose) {
  switch (purpose) {
    case v1::EVAL:
      return Purpose::kEval;
    case v1::COLLECT:
      return Purpose::kCollect;
    default:
      return Purpose::kTrain;
  }
}

v1::Purpose ToProto(Purpose purpose) {
  switch (purpose) {
    case Purpose::kTrain:
      return v1::TRAIN;
    case Purpose::kEval:
      return v1::EVAL;
    case Purpose::kCollect:
      return v1::COLLECT;
  }
  return v1::PURPOSE_UNSPECIFIED;
}

v1::Finish ToProto(FinishReason finish) {
  switch (finish) {
    case FinishReason::kStop:
      return v1::STOP;
    case FinishReason::kLength:
      return v1::LENGTH;
    case FinishReason::kCancelled:
      return v1::CANCEL;
  }
  return v1::FINISH_UNSPECIFIED;
}

v1::DoneReason ToProto(envs::DoneReason reason) {
  switch (reason) {
    case envs::DoneReason::kNotDone:
      return v1::NOT_DONE;
    case envs::DoneReason::kWon:
      return v1::WON;
    case envs::DoneReason::kEnded:
      return v1::ENDED;
    case envs::DoneReason::kLimit:
      return v1::LIMIT;
    case envs::DoneReason::kError:
      return v1::ERROR;
  }
  return v1::ERROR;
}

void ConvertTurn(const TurnRecord& turn, v1::Turn& out) {
  out.set_index(turn.index);
  out.set_trainable(turn.trainable);
  out.set_action_text(turn.action_text);
  out.set_executed_action(turn.executed_action);
  out.set_valid(turn.valid);
  out.set_admissible(turn.admissible);
  out.set_reward(turn.reward);
  out.set_anchor_hash(turn.anchor_hash);
  out.set_prompt_tokens(turn.prompt_tokens);
  out.set_cut_tokens(turn.cut_tokens);
  out.set_generate_us(absl::ToInt64Microseconds(turn.generate_time));
  out.set_env_us(absl::ToInt64Microseconds(turn.env_time));
  out.set_teacher_us(absl::ToInt64Microseconds(turn.teacher_time));
  out.set_observation(turn.observation);
}

void ConvertSequence(const SequenceRecord& sequence,
                     const v1::WeightVersion& version, v1::Sequence& out) {
  out.mutable_tokens()->Add(sequence.tokens.begin(), sequence.tokens.end());
  out.mutable_context_tokens()->Add(sequence.context_tokens.begin(),
                                    sequence.context_tokens.end());
  v1::Span& span = *out.add_spans();
  span.set_turn(sequence.turn);
  span.set_begin(sequence.begin);
  span.set_length(sequence.length);
  span.mutable_rollout_logprobs()->Add(sequence.rollout_logprobs.begin(),
                                       sequence.rollout_logprobs.end());
  v1::VersionRun& run = *span.add_versions();
  *run.mutable_version() = version;
  run.set_count(sequence.length);
  span.set_finish(ToProto(sequence.finish));
  for (const teacher::TeacherReply& reply : sequence.teacher) {
    v1::TeacherScores& scores = *span.add_teacher();
    scores.set_model(reply.model);
    scores.set_weights_hash(reply.weights_hash);
    scores.set_temperature(reply.temperature);
    scores.mutable_logprobs()->Add(reply.logprobs.begin(),
                                   reply.logprobs.end());
    scores.mutable_entropy()->Add(reply.entropy.begin(), reply.entropy.end());
  }
}

}  // namespace

EpisodeSpec SpecFromLease(const v1::Lease& lease, uint32_t sample,
                          const std::string& run_id,
                          const v1::WeightVersion& weights) {
  EpisodeSpec spec;
  spec.lease_id = lease.lease_id();
  spec.run_id = run_id;
  spec.step = lease.step();
  spec.group = lease.group();
  spec.sample = sample;
  spec.attempt = lease.attempt();
  spec.purpose = FromProto(lease.purpose());
  spec.env = lease.env();
  spec.split = lease.split();
  spec.task_id = lease.task_id();
  spec.content_hash = lease.content_hash();
  spec.env_seed = lease.env_seed();
  spec.run_seed = lease.run_seed();
  spec.sampling = {.temperature = lease.sampling().temperature(),
                   .top_p = lease.sampling().top_p(),
                   .top_k = lease.sampling().top_k(),
                   .max_tokens = lease.sampling().max_tokens()};
  spec.max_turns = lease.max_turns();
  spec.replay_actions = {lease.replay_actions().begin(),
                         lease.replay_actions().end()};
  spec.context = lease.context();
  spec.layout = lease.layout();
  spec.teachers = {lease.teachers().begin(), lease.teachers().end()};
  spec.weights_incarnation = weights.incarnation();
  spec.weights_number = weights.number();
  spec.weights_hash = weights.root_hash();
  return spec;
}

v1::Trajectory ToTrajectory(const EpisodeRecord& record,
                            const TrajectoryContext& context) {
  const EpisodeSpec& spec = record.spec;
  v1::Trajectory out;
  v1::TrajectoryId& id = *out.mutable_id();
  id.set_run_id(spec.run_id);
  id.set_step(spec.step);
  id.set_group(spec.group);
  id.set_sample(spec.sample);
  id.set_attempt(spec.attempt);
  out.set_lease_id(spec.lease_id);
  out.set_incarnation(context.incarnation);
  out.set_purpose(ToProto(spec.purpose));
  out.set_env(spec.env);
  out.set_split(spec.split);
  out.mutable_task()->set_task_id(spec.task_id);
  out.mutable_task()->set_category(record.category);
  out.mutable_task()->set_source(spec.env);
  out.set_env_seed(spec.env_seed);
  out.set_content_hash(spec.content_hash);
  out.set_layout(spec.layout);
  v1::Sampling& sampling = *out.mutable_sampling();
  sampling.set_temperature(spec.sampling.temperature);
  sampling.set_top_p(spec.sampling.top_p);
  sampling.set_top_k(spec.sampling.top_k);
  sampling.set_max_tokens(spec.sampling.max_tokens);
  v1::WeightVersion version;
  version.set_incarnation(spec.weights_incarnation);
  version.set_number(spec.weights_number);
  version.set_root_hash(spec.weights_hash);
  for (const SequenceRecord& sequence : record.sequences) {
    ConvertSequence(sequence, version, *out.add_sequences());
  }
  for (const TurnRecord& turn : record.turns) {
    ConvertTurn(turn, *out.add_turns());
  }
  v1::Outcome& outcome = *out.mutable_outcome();
  outcome.set_reward(record.reward);
  outcome.set_success(record.success);
  outcome.set_score(record.score);
  outcome.set_length(static_cast<uint32_t>(record.turns.size()));
  outcome.set_done_reason(ToProto(record.done_reason));
  if (!record.error.empty()) {
    outcome.mutable_error()->set_kind(record.error);
    outcome.mutable_error()->set_message(record.error_message.empty()
                                             ? "no reason given"
                                             : record.error_message);
  }
  out.set_worker(context.worker);
  out.set_started_us(absl::ToUnixMicros(record.started));
  out.set_ended_us(absl::ToUnixMicros(record.ended));
  out.set_config_hash(context.config_hash);
  out.set_run_seed(spec.run_seed);
  out.set_max_turns(spec.max_turns);
  return out;
}

EpisodeSpec SpecFromTrajectory(const v1::Trajectory& t) {
  EpisodeSpec spec;
  spec.lease_id = t.lease_id();
  spec.run_id = t.id().run_id();
  spec.step = t.id().step();
  spec.group = t.id().group();
  spec.sample = t.id().sample();
  spec.attempt = t.id().attempt();
  spec.purpose = FromProto(t.purpose());
  spec.env = t.env();
  spec.split = t.split();
  spec.task_id = t.task().task_id();
  spec.content_hash = t.content_hash();
  spec.env_seed = t.env_seed();
  spec.run_seed = t.run_seed();
  spec.sampling = {.temperature = t.sampling().temperature(),
                   .top_p = t.sampling().top_p(),
                   .top_k = t.sampling().top_k(),
                   .max_tokens = t.sampling().max_tokens()};
  spec.max_turns = t.max_turns();
  for (const v1::Turn& turn : t.turns())
    if (!turn.trainable()) spec.replay_actions.push_back(turn.action_text());
  spec.layout = t.layout();
  for (const v1::Sequence& sequence : t.sequences()) {
    for (const v1::Span& span : sequence.spans()) {
      for (const v1::VersionRun& run : span.versions()) {
        spec.weights_incarnation = run.version().incarnation();
        spec.weights_number = run.version().number();
        spec.weights_hash = run.version().root_hash();
      }
      if (!spec.teachers.empty()) continue;
      for (const v1::TeacherScores& scores : span.teacher())
        spec.teachers.push_back(scores.model());
    }
  }
  return spec;
}

}  // namespace atod::rollout
