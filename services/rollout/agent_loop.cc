#include "services/rollout/agent_loop.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/warn.h"

namespace atod::rollout {
namespace {

// An answer that asking again will not change.
bool IsFinal(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return true;
    default:
      return false;
  }
}

// An environment server that will not serve this caller.
bool IsRefusal(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsUnimplemented(status) ||
         absl::IsPermissionDenied(status) || absl::IsUnauthenticated(status);
}

// Tries of a call whose answer is neither final nor that of a peer which is
// away or busy: an inner fault may pass, or may be the task's own.
constexpr uint32_t kMaxFaults = 5;

bool IsFault(const absl::Status& status) {
  return absl::IsInternal(status) || absl::IsUnknown(status) ||
         absl::IsDataLoss(status);
}

std::string Name(const v1::Trajectory& t) {
  const v1::TrajectoryId& id = t.id();
  return absl::StrCat("episode ", id.step(), "/", id.group(), "/", id.sample(),
                      ".", id.attempt());
}

// What is known before the first call.
v1::Trajectory Begin(const Assignment& a) {
  v1::Trajectory out;
  v1::TrajectoryId& id = *out.mutable_id();
  id.set_run_id(a.run_id);
  id.set_step(a.lease.step());
  id.set_group(a.lease.group());
  id.set_sample(a.sample);
  id.set_attempt(a.lease.attempt());
  out.set_lease_id(a.lease.lease_id());
  out.set_incarnation(a.incarnation);
  out.set_purpose(a.lease.purpose());
  out.set_env(a.lease.env());
  out.set_split(a.lease.split());
  out.mutable_task()->set_task_id(a.lease.task_id());
  out.mutable_task()->set_source(a.lease.env());
  out.set_env_seed(a.lease.env_seed());
  out.set_content_hash(a.lease.content_hash());
  out.set_layout(a.lease.layout());
  *out.mutable_sampling() = a.lease.sampling();
  out.set_worker(a.worker);
  out.set_config_hash(a.config_hash);
  out.set_run_seed(a.lease.run_seed());
  out.set_max_turns(a.lease.max_turns());
  return out;
}

v1::Finish ToProto(engine::FinishReason finish) {
  switch (finish) {
    case engine::FinishReason::kStop:
      return v1::STOP;
    case engine::FinishReason::kLength:
      return v1::LENGTH;
    case engine::FinishReason::kCancelled:
      return v1::CANCEL;
  }
  return v1::FINISH_UNSPECIFIED;
}

void SetError(v1::Trajectory& out, const std::string& kind,
              const std::string& message) {
  v1::Outcome& outcome = *out.mutable_outcome();
  outcome.set_done_reason(v1::ERROR);
  outcome.mutable_error()->set_kind(kind);
  outcome.mutable_error()->set_message(message.empty() ? "no reason given"
                                                       : message);
}

// Rollouts of one task begin with the same prompt, which is computed once.
uint64_t FirstPromptGroup(const v1::Lease& lease, uint32_t turn) {
  if (turn > 0) return 0;
  return (uint64_t{lease.step()} << 32) + lease.group() + 1;
}

void SetResult(v1::Turn& turn, const envs::StepResult& result) {
  turn.set_executed_action(result.executed_action);
  turn.set_valid(result.action_valid);
  turn.set_admissible(result.action_admissible);
  turn.set_reward(result.observation.reward);
}

}  // namespace

struct AgentLoop::Episode {
  uint64_t id = 0;
  const envs::EnvDescription* env = nullptr;
  Assignment play;
  v1::Trajectory out;
  uint32_t max_turns = 0;
  std::string env_episode;  // empty while there is none
  uint32_t resets = 0;      // part of the request id
  uint32_t failures = 0;    // of the environment, in a row
  uint32_t faults = 0;      // IsFault answers, in a row
  std::vector<HistoryRecord> history;
  envs::Observation observation;
  std::string model_text;  // response of the turn that is being stepped
  bool stepping = false;   // a response waits for the environment
  bool playing = true;     // holds a slot
  absl::Time asked;        // when the call under way was made
  size_t scores_pending = 0;
};

AgentLoop::AgentLoop(engine::Engine& engine, envs::EnvCaller& envs,
                     const Tokenizer& tokenizer,
                     teacher::TeacherCaller* teachers, Clock& clock,
                     metrics::Registry& registry, Options options)
    : engine_(engine),
      envs_(envs),
      tokenizer_(tokenizer),
      teachers_(teachers),
      clock_(clock),
      options_(std::move(options)),
      events_(std::make_shared<EventQueue>()),
      prompt_tokens_(registry.Counter(metrics::kRolloutPromptTokens)),
      cut_tokens_(registry.Counter(metrics::kRolloutCutTokens)),
      context_ends_(registry.Counter(metrics::kRolloutContextEnds)),
      sampled_tokens_(registry.Counter(metrics::kRolloutTokens)),
      engine_seconds_(registry.Counter(metrics::kRolloutEngineSeconds)),
      idle_seconds_(registry.Counter(metrics::kRolloutIdleSeconds)),
      batch_rows_(
          registry.Histogram(metrics::kRolloutBatchRows, metrics::Sizes())),
      env_seconds_(registry.Histogram(metrics::kRolloutEnvSeconds)),
      teacher_seconds_(registry.Histogram(metrics::kRolloutTeacherSeconds)) {}

AgentLoop::~AgentLoop() {
  events_->Close();
  CancelAll();
}

absl::StatusOr<const envs::EnvDescription*> AgentLoop::Describe(
    const std::string& env) {
  auto it = descriptions_.find(env);
  if (it == descriptions_.end()) {
    const absl::Time asked = clock_.Now();
    absl::StatusOr<envs::EnvDescription> description = envs_.Describe(env);
    absl::Status status = description.status();
    // What may pass is no answer yet.
    if (!status.ok() && !IsFinal(status))
      status = absl::UnavailableError(status.message());
    Heard(asked, status);
    ATOD_RETURN_IF_ERROR(status);
    it = descriptions_.emplace(env, *std::move(description)).first;
  }
  return &it->second;
}

absl::Status AgentLoop::Reach(const std::string& env) {
  descriptions_.erase(env);
  return Describe(env).status();
}

void AgentLoop::Heard(absl::Time asked, const absl::Status& status) {
  if (!envs::IsAway(status)) {
    env_heard_ = clock_.Now();
    env_silence_ = {};
    return;
  }
  env_silence_.since =
      std::min(env_silence_.since, std::max(asked, env_heard_));
  env_silence_.status = status;
}

absl::Status AgentLoop::Add(Assignment play) {
  const v1::Lease& lease = play.lease;
  if (free_slots() == 0) {
    return absl::ResourceExhaustedError("no free slot");
  }
  if (lease.layout() == kGrowing &&
      (!lease.replay_actions().empty() || !lease.context().empty())) {
    return absl::InvalidArgumentError(
        absl::StrCat("layout ", kGrowing, ": found ",
                     lease.context().empty() ? "replay_actions" : "a context",
                     ", which only ", kWindowed, " can show"));
  }
  const uint32_t max_tokens = lease.sampling().max_tokens();
  if (max_tokens == 0 || max_tokens >= options_.max_context) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sampling.max_tokens: found ", max_tokens,
        ", expected 1 to less than the context of ", options_.max_context));
  }
  if (!lease.teachers().empty() && teachers_ == nullptr) {
    return absl::InvalidArgumentError("teachers: none is connected");
  }
  ATOD_ASSIGN_OR_RETURN(const envs::EnvDescription* env, Describe(lease.env()));
  ATOD_RETURN_IF_ERROR(CheckLayout(env->prompt, lease.layout()));
  auto episode = std::make_unique<Episode>();
  Episode& e = *episode;
  e.id = next_id_++;
  e.env = env;
  e.max_turns =
      lease.max_turns() > 0 ? lease.max_turns() : env->default_max_turns;
  e.out = Begin(play);
  e.out.set_started_us(absl::ToUnixMicros(clock_.Now()));
  e.play = std::move(play);
  episodes_.emplace(e.id, std::move(episode));
  ++playing_;
  SendReset(e);
  return absl::OkStatus();
}

void AgentLoop::Wake() {
  events_->Push([](AgentLoop&) {});
}

AgentLoop::Episode* AgentLoop::Find(uint64_t id) {
  const auto it = episodes_.find(id);
  return it == episodes_.end() ? nullptr : it->second.get();
}

void AgentLoop::Post(absl::Duration delay, Event event) {
  timers_.emplace(clock_.Now() + delay, std::move(event));
}

absl::Duration AgentLoop::Backoff(uint32_t failures) const {
  return std::min(options_.retry_max,
                  options_.retry_min * (1 << std::min(failures, 16u)));
}

bool AgentLoop::RunEvents() {
  bool any = false;
  while (!timers_.empty() && timers_.begin()->first <= clock_.Now()) {
    Event event = std::move(timers_.extract(timers_.begin()).mapped());
    event(*this);
    any = true;
  }
  while (auto event = events_->TryPop()) {
    (*event)(*this);
    any = true;
  }
  return any;
}

absl::StatusOr<std::vector<v1::Trajectory>> AgentLoop::Poll(
    absl::Duration max_wait) {
  const bool ran = RunEvents();
  if (engine_.has_work()) {
    const absl::Time begin = clock_.Now();
    batch_rows_.Observe(static_cast<double>(generating_));
    ATOD_ASSIGN_OR_RETURN(std::vector<engine::EngineResult> results,
                          engine_.Step());
    engine_seconds_.Increment(absl::ToDoubleSeconds(clock_.Now() - begin));
    for (engine::EngineResult& result : results) OnGenerated(std::move(result));
  } else if (finished_.empty() && !ran) {
    const absl::Time begin = clock_.Now();
    if (!timers_.empty()) {
      max_wait = std::min(max_wait, timers_.begin()->first - begin);
    }
    auto event = events_->Pop(std::max(max_wait, absl::ZeroDuration()));
    idle_seconds_.Increment(absl::ToDoubleSeconds(clock_.Now() - begin));
    if (event.has_value()) (*event)(*this);
    RunEvents();
  }
  ATOD_RETURN_IF_ERROR(refused_);
  return std::exchange(finished_, {});
}

bool AgentLoop::TooManyFaults(Episode& e, const absl::Status& status) const {
  return IsFault(status) && ++e.faults >= kMaxFaults;
}

void AgentLoop::SendReset(Episode& e) {
  const v1::Lease& lease = e.play.lease;
  envs::ResetRequest request;
  request.request_id = absl::StrCat(options_.nonce, "/", e.play.run_id, "/",
                                    lease.lease_id(), "/", e.id, "/", e.resets);
  request.env = lease.env();
  request.options = {.split = lease.split(),
                     .task_id = lease.task_id(),
                     .seed = lease.env_seed(),
                     .max_turns = lease.max_turns()};
  request.replay_actions = {lease.replay_actions().begin(),
                            lease.replay_actions().end()};
  request.content_hash = lease.content_hash();
  // After the prefix come the turns played before the server lost the episode.
  for (const v1::Turn& turn : e.out.turns()) {
    if (turn.trainable() && turn.index() < e.history.size()) {
      request.replay_actions.push_back(turn.executed_action());
    }
  }
  e.asked = clock_.Now();
  envs_.Reset(request, [queue = events_, id = e.id](auto reply) {
    queue->Push([id, reply = std::move(reply)](AgentLoop& loop) mutable {
      loop.OnReset(id, std::move(reply));
    });
  });
}

void AgentLoop::OnReset(uint64_t id, absl::StatusOr<envs::ResetResult> reply) {
  Episode* e = Find(id);
  if (e == nullptr) {  // cancelled meanwhile
    if (reply.ok()) envs_.Close(reply->episode_id);
    return;
  }
  Heard(e->asked, reply.status());
  if (!reply.ok()) {
    if (IsRefusal(reply.status())) {
      refused_ = absl::FailedPreconditionError(reply.status().message());
      return;
    }
    if (IsFinal(reply.status()) || TooManyFaults(*e, reply.status()))
      return Fail(*e, "task", reply.status());
    spdlog::warn("{}: reset failed, will be repeated: {}", Name(e->out),
                 std::string(reply.status().message()));
    Post(Backoff(e->failures++), [id](AgentLoop& loop) {
      if (Episode* episode = loop.Find(id)) loop.SendReset(*episode);
    });
    return;
  }
  e->failures = e->faults = 0;
  e->env_episode = std::move(reply->episode_id);
  if (e->stepping) {  // rebuilt: the response waits
    const absl::Status same = CheckRebuilt(*e, *reply);
    if (!same.ok()) return Fail(*e, "environment", same);
    return SendStep(*e);
  }
  const v1::Lease& lease = e->play.lease;
  if (static_cast<int>(reply->replayed.size()) != lease.replay_actions_size()) {
    return Fail(*e, "task",
                absl::InternalError(absl::StrCat(
                    "reset replayed ", reply->replayed.size(), " of ",
                    lease.replay_actions_size(), " actions")));
  }
  e->observation = std::move(reply->first);
  e->out.mutable_task()->set_category(e->observation.category);
  for (envs::StepResult& step : reply->replayed) {
    v1::Turn& turn = AddTurn(*e);
    turn.set_action_text(lease.replay_actions(static_cast<int>(turn.index())));
    SetResult(turn, step);
    e->history.push_back({e->observation.text, step.executed_action});
    e->observation = std::move(step.observation);
  }
  StartTurn(*e);
}

absl::Status AgentLoop::CheckRebuilt(const Episode& e,
                                     const envs::ResetResult& reply) const {
  if (reply.replayed.size() != e.history.size()) {
    return absl::InternalError(absl::StrCat("rebuilding replayed ",
                                            reply.replayed.size(), " of ",
                                            e.history.size(), " actions"));
  }
  const envs::Observation& now =
      reply.replayed.empty() ? reply.first : reply.replayed.back().observation;
  if (e.env->deterministic && now.text != e.observation.text) {
    return absl::AbortedError(absl::StrCat(
        "rebuilt episode differs at turn ", e.history.size(), ": found \"",
        now.text, "\", expected \"", e.observation.text, "\""));
  }
  return absl::OkStatus();
}

bool AgentLoop::Grows(const Episode& e) {
  return e.play.lease.layout() == kGrowing;
}

PromptInputs AgentLoop::InputsOf(const Episode& e) {
  PromptInputs inputs;
  inputs.task = e.observation.task;
  inputs.observation = e.observation.text;
  inputs.admissible = e.observation.admissible;
  inputs.fields = e.observation.fields;
  inputs.history = e.history;  // its window is the prompt's concern
  inputs.turn_index = static_cast<uint32_t>(e.history.size());
  return inputs;
}

uint32_t AgentLoop::Room(const Episode& e) const {
  return options_.max_context - e.play.lease.sampling().max_tokens();
}

void AgentLoop::StartTurn(Episode& e) {
  if (e.observation.done) return FinishPlay(e);
  if (e.history.size() >= e.max_turns) {
    e.observation.done_reason = envs::DoneReason::kLimit;
    return FinishPlay(e);
  }
  const PromptInputs inputs = InputsOf(e);
  if (Grows(e) && e.out.sequences_size() > 0) return GrowTurn(e, inputs);
  const v1::Lease& lease = e.play.lease;
  absl::StatusOr<FittedPrompt> prompt =
      FitPrompt(e.env->prompt, inputs, tokenizer_, Room(e));
  if (!prompt.ok() || prompt->tokens.empty())
    return EndWithoutPrompt(e, prompt.status());
  std::vector<int32_t> context_tokens;
  if (!lease.context().empty()) {
    absl::StatusOr<FittedPrompt> context = FitContextPrompt(
        e.env->prompt, inputs, lease.context(), tokenizer_, Room(e));
    // Not a failure: the next worker would find the same.
    if (!context.ok()) return EndWithoutPrompt(e, context.status());
    context_tokens = std::move(context->tokens);
  }
  v1::Sequence& sequence = *e.out.add_sequences();
  sequence.mutable_context_tokens()->Add(context_tokens.begin(),
                                         context_tokens.end());
  Ask(e, sequence, *prompt);
}

void AgentLoop::GrowTurn(Episode& e, const PromptInputs& inputs) {
  v1::Sequence& sequence = *e.out.mutable_sequences(0);
  const auto last = static_cast<int32_t>(*sequence.tokens().rbegin());
  FittedPrompt more;
  absl::StatusOr<std::vector<int32_t>> tokens =
      GrowPrompt(e.env->prompt, inputs, tokenizer_, last);
  if (!tokens.ok()) return EndWithoutPrompt(e, tokens.status());
  more.tokens = *std::move(tokens);
  const size_t whole = sequence.tokens_size() + more.tokens.size();
  if (whole <= Room(e)) return Ask(e, sequence, more);
  // No prompt can be cut where all of it was seen: the episode is over, as one
  // is whose turns are.
  if (!std::exchange(warned_of_room_, true))
    LogWarning(absl::StrCat("episodes end for want of context: found ", whole,
                            " tokens (", e.play.lease.task_id(), ", turn ",
                            inputs.turn_index, "); ", ContextText(e),
                            ". Said once: ", metrics::kRolloutContextEnds.name,
                            " counts"));
  context_ends_.Increment();
  e.observation.done_reason = envs::DoneReason::kLimit;
  FinishPlay(e);
}

void AgentLoop::Ask(Episode& e, v1::Sequence& sequence,
                    const FittedPrompt& more) {
  const v1::Lease& lease = e.play.lease;
  sequence.mutable_tokens()->Add(more.tokens.begin(), more.tokens.end());
  const auto turn_index = static_cast<uint32_t>(e.history.size());
  engine::EngineRequest request;
  request.id = e.id;
  request.prompt = {sequence.tokens().begin(), sequence.tokens().end()};
  request.sampling = {.temperature = lease.sampling().temperature(),
                      .top_p = lease.sampling().top_p(),
                      .top_k = lease.sampling().top_k(),
                      .max_tokens = lease.sampling().max_tokens()};
  request.noise = {.run_seed = lease.run_seed(),
                   .step = lease.step(),
                   .group = lease.group(),
                   .sample = e.play.sample,
                   .turn = turn_index};
  if (Grows(e)) request.session = e.id;
  request.group = FirstPromptGroup(lease, turn_index);
  const absl::Status queued = engine_.Enqueue(std::move(request));
  if (!queued.ok()) return Fail(e, "engine", queued);
  ++generating_;
  v1::Turn& turn = AddTurn(e);
  turn.set_trainable(true);
  turn.set_prompt_tokens(static_cast<uint32_t>(sequence.tokens_size()));
  turn.set_cut_tokens(more.cut_tokens);
  prompt_tokens_.Increment(static_cast<double>(more.tokens.size()));
  if (turn.cut_tokens() > 0) {
    cut_tokens_.Increment(turn.cut_tokens());
    WarnOfCut(e, turn);
  }
  v1::Span& span = *sequence.add_spans();
  span.set_turn(turn.index());
  span.set_begin(turn.prompt_tokens());
  e.asked = clock_.Now();
}

v1::Turn& AgentLoop::AddTurn(Episode& e) {
  v1::Turn& turn = *e.out.add_turns();
  turn.set_index(static_cast<uint32_t>(e.out.turns_size() - 1));
  turn.set_anchor_hash(HashHex(e.observation.anchor));
  turn.set_observation(e.observation.text);
  return turn;
}

std::string AgentLoop::ContextText(const Episode& e) const {
  return absl::StrCat("model.max_context is ", options_.max_context,
                      ", of which sampling.train.max_tokens takes ",
                      e.play.lease.sampling().max_tokens());
}

void AgentLoop::EndWithoutPrompt(Episode& e, const absl::Status& status) {
  const bool too_long = absl::IsResourceExhausted(status);
  std::string text = absl::StrCat(
      "turn ", e.history.size(), ": ",
      status.ok() ? "found no tokens in the prompt" : status.message());
  const uint32_t limit = e.env->prompt.max_prompt_tokens;
  if (too_long && (limit == 0 || limit > Room(e)))
    absl::StrAppend(&text, "; ", ContextText(e),
                    ": raise the one or lower the other");
  EndInError(e, status.ok() || too_long ? "prompt" : "template", text);
}

void AgentLoop::WarnOfCut(const Episode& e, const v1::Turn& turn) {
  if (std::exchange(warned_of_cut_, true)) return;
  LogWarning(absl::StrCat(
      "prompts do not fit and are cut: found ",
      turn.prompt_tokens() + turn.cut_tokens(), " tokens (",
      e.play.lease.task_id(), ", turn ", turn.index(), "), kept ",
      turn.prompt_tokens(), "; ", ContextText(e),
      ". Said once: ", metrics::kRolloutCutTokens.name, " counts"));
}

void AgentLoop::OnGenerated(engine::EngineResult result) {
  --generating_;
  sampled_tokens_.Increment(static_cast<double>(result.tokens.size()));
  Episode* e = Find(result.id);
  if (e == nullptr) return;  // cancelled meanwhile
  if (result.finish == engine::FinishReason::kCancelled ||
      result.tokens.empty() || result.logprobs.size() != result.tokens.size()) {
    return Fail(*e, "engine",
                absl::AbortedError("the engine gave up the request"));
  }
  const v1::Lease& lease = e->play.lease;
  const int last = e->out.sequences_size() - 1;
  v1::Sequence& sequence = *e->out.mutable_sequences(last);
  sequence.mutable_tokens()->Add(result.tokens.begin(), result.tokens.end());
  const int number = sequence.spans_size() - 1;
  v1::Span& span = *sequence.mutable_spans(number);
  span.set_length(static_cast<uint32_t>(result.tokens.size()));
  span.mutable_rollout_logprobs()->Add(result.logprobs.begin(),
                                       result.logprobs.end());
  v1::VersionRun& run = *span.add_versions();
  *run.mutable_version() = e->play.weights;
  run.set_count(span.length());
  span.set_finish(ToProto(result.finish));
  if (result.finish == engine::FinishReason::kStop) result.tokens.pop_back();
  e->model_text = tokenizer_.Decode(result.tokens);
  v1::Turn& turn = *e->out.mutable_turns(e->out.turns_size() - 1);
  turn.set_action_text(e->model_text);
  turn.set_generate_us(absl::ToInt64Microseconds(clock_.Now() - e->asked));
  e->stepping = true;
  e->asked = clock_.Now();
  for (const std::string& model : lease.teachers())
    span.add_teacher()->set_model(model);
  e->scores_pending += lease.teachers_size();
  for (int i = 0; i < lease.teachers_size(); ++i)
    SendScore(*e, {last, number, i});
  SendStep(*e);
}

void AgentLoop::SendStep(Episode& e) {
  envs_.Step(
      e.env_episode, static_cast<uint32_t>(e.history.size()), e.model_text,
      [queue = events_, id = e.id](auto reply) {
        queue->Push([id, reply = std::move(reply)](AgentLoop& loop) mutable {
          loop.OnStep(id, std::move(reply));
        });
      });
}

void AgentLoop::OnStep(uint64_t id, absl::StatusOr<envs::StepResult> reply) {
  Episode* e = Find(id);
  if (e == nullptr) return;
  Heard(e->asked, reply.status());
  if (!reply.ok()) {
    const absl::Status& status = reply.status();
    // The server forgot the episode, is at another turn, or is gone: it is
    // rebuilt, perhaps at another server.
    const bool rebuild = absl::IsNotFound(status) ||
                         absl::IsFailedPrecondition(status) ||
                         envs::IsAway(status);
    if (rebuild) {
      envs_.Close(std::exchange(e->env_episode, ""));
      ++e->resets;
    } else if (IsFinal(status) || TooManyFaults(*e, status)) {
      return Fail(*e, "environment", status);
    }
    spdlog::warn("{}: turn {} will be repeated: {}", Name(e->out),
                 e->history.size(), std::string(status.message()));
    Post(Backoff(e->failures++), [id, rebuild](AgentLoop& loop) {
      Episode* episode = loop.Find(id);
      if (episode == nullptr) return;
      rebuild ? loop.SendReset(*episode) : loop.SendStep(*episode);
    });
    return;
  }
  e->failures = e->faults = 0;
  e->stepping = false;
  v1::Turn& turn = *e->out.mutable_turns(e->out.turns_size() - 1);
  SetResult(turn, *reply);
  const absl::Duration waited = clock_.Now() - e->asked;
  turn.set_env_us(absl::ToInt64Microseconds(waited));
  env_seconds_.Observe(absl::ToDoubleSeconds(waited));
  e->history.push_back({e->observation.text, reply->executed_action});
  e->observation = std::move(reply->observation);
  StartTurn(*e);
}

void AgentLoop::SendScore(Episode& e, ScoredSpan which) {
  const v1::Sequence& from = e.out.sequences(which.sequence);
  const v1::Span& span = from.spans(which.span);
  teacher::TeacherRequest request;
  request.model = e.play.lease.teachers(which.teacher);
  request.begin = span.begin();
  request.length = span.length();
  request.tokens = {from.tokens().begin(),
                    from.tokens().begin() + span.begin() + span.length()};
  if (Grows(e)) request.session = absl::StrCat(options_.nonce, "/", e.id);
  // Student and teacher log-probs are compared at one temperature; greedy
  // sampling reports its log-probs at 1 (EngineResult::logprobs).
  const float t = e.play.lease.sampling().temperature();
  request.temperature = t > 0 ? t : 1;
  teachers_->Score(std::move(request), [queue = events_, id = e.id, which,
                                        sent = clock_.Now()](auto reply) {
    queue->Push(
        [id, which, sent, reply = std::move(reply)](AgentLoop& loop) mutable {
          loop.OnScore(id, which, sent, std::move(reply));
        });
  });
}

void AgentLoop::OnScore(uint64_t id, ScoredSpan which, absl::Time sent,
                        absl::StatusOr<teacher::TeacherReply> reply) {
  Episode* e = Find(id);
  if (e == nullptr) return;
  v1::Span& to =
      *e->out.mutable_sequences(which.sequence)->mutable_spans(which.span);
  if (reply.ok() && reply->logprobs.size() != to.length()) {
    reply = absl::InvalidArgumentError(absl::StrCat(
        "teacher ", reply->model, " returned ", reply->logprobs.size(),
        " log-probs, expected ", to.length()));
  }
  if (!reply.ok()) {
    if (IsFinal(reply.status()) || TooManyFaults(*e, reply.status()))
      return Fail(*e, "teacher", reply.status());
    const std::string why(reply.status().message());
    spdlog::warn("{}: scoring will be repeated: {}", Name(e->out), why);
    teacher_silence_ = std::min(teacher_silence_, sent);
    if (clock_.Now() - teacher_silence_ >= options_.teacher_patience &&
        !std::exchange(teacher_silent_, true))
      LogWarning(absl::StrCat("no teacher answers: ", why,
                              "; episodes wait for their scores"));
    Post(options_.retry_max, [id, which](AgentLoop& loop) {
      Episode* episode = loop.Find(id);
      if (episode != nullptr) loop.SendScore(*episode, which);
    });
    return;
  }
  teacher_silent_ = false;
  teacher_silence_ = absl::InfiniteFuture();
  const absl::Duration waited = clock_.Now() - sent;
  v1::Turn& turn = *e->out.mutable_turns(static_cast<int>(to.turn()));
  turn.set_teacher_us(
      std::max<uint64_t>(turn.teacher_us(), absl::ToInt64Microseconds(waited)));
  teacher_seconds_.Observe(absl::ToDoubleSeconds(waited));
  v1::TeacherScores& scores = *to.mutable_teacher(which.teacher);
  scores.set_model(reply->model);
  scores.set_weights_hash(reply->weights_hash);
  scores.set_temperature(reply->temperature);
  scores.mutable_logprobs()->Add(reply->logprobs.begin(),
                                 reply->logprobs.end());
  scores.mutable_entropy()->Add(reply->entropy.begin(), reply->entropy.end());
  --e->scores_pending;
  MaybeComplete(*e);
}

void AgentLoop::FinishPlay(Episode& e) {
  StopPlaying(e);
  v1::Outcome& outcome = *e.out.mutable_outcome();
  float reward = 0;
  for (const v1::Turn& turn : e.out.turns()) reward += turn.reward();
  outcome.set_reward(reward);
  outcome.set_success(e.observation.success);
  outcome.set_score(e.observation.task_score);
  // Numbered alike.
  outcome.set_done_reason(
      static_cast<v1::DoneReason>(e.observation.done_reason));
  if (outcome.done_reason() == v1::ERROR && !outcome.has_error()) {
    SetError(e.out, "environment",
             "the environment ended the episode with an error");
  }
  MaybeComplete(e);
}

void AgentLoop::EndInError(Episode& e, const std::string& kind,
                           const std::string& message) {
  spdlog::warn("{} ends: {}: {}", Name(e.out), kind, message);
  e.observation.done_reason = envs::DoneReason::kError;
  SetError(e.out, kind, message);
  FinishPlay(e);
}

void AgentLoop::Fail(Episode& e, const std::string& kind,
                     const absl::Status& status) {
  const std::string message(status.message());
  spdlog::error("{} failed: {}", Name(e.out), message);
  StopPlaying(e);
  SetError(e.out, kind, message);
  Complete(e);
}

void AgentLoop::StopPlaying(Episode& e) {
  e.out.set_ended_us(absl::ToUnixMicros(clock_.Now()));
  if (!std::exchange(e.playing, false)) return;
  --playing_;
  if (Grows(e)) engine_.EndSession(e.id);
  if (!e.env_episode.empty()) envs_.Close(e.env_episode);
}

void AgentLoop::MaybeComplete(Episode& e) {
  if (!e.playing && e.scores_pending == 0) Complete(e);
}

void AgentLoop::Complete(Episode& e) {
  e.out.mutable_outcome()->set_length(
      static_cast<uint32_t>(e.out.turns_size()));
  finished_.push_back(std::move(e.out));
  const uint64_t id = e.id;
  episodes_.erase(id);
}

void AgentLoop::Cancel(uint64_t lease_id) {
  for (auto it = episodes_.begin(); it != episodes_.end();) {
    if (it->second->play.lease.lease_id() != lease_id) {
      ++it;
      continue;
    }
    // Nobody waits for its response.
    if (engine_.Cancel(it->first)) --generating_;
    StopPlaying(*it->second);
    it = episodes_.erase(it);
  }
}

void AgentLoop::CancelAll() {
  engine_.CancelAll();
  generating_ = 0;
  for (auto& [id, e] : episodes_) StopPlaying(*e);
  episodes_.clear();
  env_silence_ = {};
}

}  // namespace atod::rollout
