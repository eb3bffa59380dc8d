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

// No answer: the peer died, hangs or cannot be reached.
bool IsAway(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

// Tries of a call whose answer is neither final nor that of a peer which is
// away or busy: an inner fault may pass, or may be the task's own.
constexpr uint32_t kMaxFaults = 5;

bool IsFault(const absl::Status& status) {
  return absl::IsInternal(status) || absl::IsUnknown(status) ||
         absl::IsDataLoss(status);
}

std::string Name(const EpisodeSpec& spec) {
  return absl::StrCat("episode ", spec.step, "/", spec.group, "/", spec.sample,
                      ".", spec.attempt);
}

}  // namespace

struct AgentLoop::Episode {
  uint64_t id = 0;
  const envs::EnvDescription* env = nullptr;
  EpisodeRecord record;
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

AgentLoop::AgentLoop(Engine& engine, envs::EnvCaller& envs,
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
    Heard(asked, description.status());
    if (!description.ok()) return description.status();
    it = descriptions_.emplace(env, *std::move(description)).first;
  }
  return &it->second;
}

absl::Status AgentLoop::Reach(const std::string& env) {
  descriptions_.erase(env);
  return Describe(env).status();
}

void AgentLoop::Heard(absl::Time asked, const absl::Status& status) {
  if (!IsAway(status)) {
    env_heard_ = clock_.Now();
    env_silence_ = {};
    return;
  }
  env_silence_.since =
      std::min(env_silence_.since, std::max(asked, env_heard_));
  env_silence_.status = status;
}

absl::Status AgentLoop::Add(EpisodeSpec spec) {
  if (free_slots() == 0) {
    return absl::ResourceExhaustedError("no free slot");
  }
  if (spec.layout != "windowed") {
    return absl::InvalidArgumentError(
        absl::StrCat("layout: found ", spec.layout, ", expected windowed"));
  }
  if (spec.sampling.max_tokens == 0 ||
      spec.sampling.max_tokens >= options_.max_context) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sampling.max_tokens: found ", spec.sampling.max_tokens,
        ", expected 1 to less than the context of ", options_.max_context));
  }
  if (!spec.teachers.empty() && teachers_ == nullptr) {
    return absl::InvalidArgumentError("teachers: none is connected");
  }
  ATOD_ASSIGN_OR_RETURN(const envs::EnvDescription* env, Describe(spec.env));
  auto episode = std::make_unique<Episode>();
  Episode& e = *episode;
  e.id = next_id_++;
  e.env = env;
  e.max_turns = spec.max_turns > 0 ? spec.max_turns : env->default_max_turns;
  e.record.started = clock_.Now();
  e.record.spec = std::move(spec);
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

absl::StatusOr<std::vector<EpisodeRecord>> AgentLoop::Poll(
    absl::Duration max_wait) {
  const bool ran = RunEvents();
  if (engine_.has_work()) {
    const absl::Time begin = clock_.Now();
    batch_rows_.Observe(static_cast<double>(generating_));
    ATOD_ASSIGN_OR_RETURN(std::vector<EngineResult> results, engine_.Step());
    engine_seconds_.Increment(absl::ToDoubleSeconds(clock_.Now() - begin));
    for (EngineResult& result : results) OnGenerated(std::move(result));
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
  const EpisodeSpec& spec = e.record.spec;
  envs::ResetRequest request;
  request.request_id = absl::StrCat(options_.nonce, "/", spec.run_id, "/",
                                    spec.lease_id, "/", e.id, "/", e.resets);
  request.env = spec.env;
  request.options = {.split = spec.split,
                     .task_id = spec.task_id,
                     .seed = spec.env_seed,
                     .max_turns = spec.max_turns};
  request.replay_actions = spec.replay_actions;
  request.content_hash = spec.content_hash;
  // After the prefix come the turns played before the server lost the episode.
  for (const TurnRecord& turn : e.record.turns) {
    if (turn.trainable && turn.index < e.history.size()) {
      request.replay_actions.push_back(turn.executed_action);
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
      refused_ = reply.status();
      return;
    }
    if (IsFinal(reply.status()) || TooManyFaults(*e, reply.status()))
      return Fail(*e, "task", reply.status());
    spdlog::warn("{}: reset failed, will be repeated: {}", Name(e->record.spec),
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
  if (reply->replayed.size() != e->record.spec.replay_actions.size()) {
    return Fail(*e, "task",
                absl::InternalError(absl::StrCat(
                    "reset replayed ", reply->replayed.size(), " of ",
                    e->record.spec.replay_actions.size(), " actions")));
  }
  e->observation = std::move(reply->first);
  e->record.category = e->observation.category;
  for (envs::StepResult& step : reply->replayed) {
    TurnRecord turn;
    turn.index = static_cast<uint32_t>(e->record.turns.size());
    turn.trainable = false;
    turn.action_text = e->record.spec.replay_actions[turn.index];
    turn.executed_action = step.executed_action;
    turn.valid = step.action_valid;
    turn.admissible = step.action_admissible;
    turn.reward = step.observation.reward;
    turn.anchor_hash = HashHex(e->observation.anchor);
    turn.observation = e->observation.text;
    e->history.push_back({e->observation.text, step.executed_action});
    e->record.turns.push_back(std::move(turn));
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

void AgentLoop::StartTurn(Episode& e) {
  if (e.observation.done) return FinishPlay(e);
  if (e.history.size() >= e.max_turns) {
    e.observation.done_reason = envs::DoneReason::kLimit;
    return FinishPlay(e);
  }
  TurnRecord turn;
  turn.index = static_cast<uint32_t>(e.history.size());
  turn.anchor_hash = HashHex(e.observation.anchor);
  turn.observation = e.observation.text;
  const EpisodeSpec& spec = e.record.spec;
  PromptInputs inputs;
  inputs.task = e.observation.task;
  inputs.observation = e.observation.text;
  inputs.admissible = e.observation.admissible;
  inputs.fields = e.observation.fields;
  inputs.history.assign(
      e.history.end() -
          std::min<size_t>(e.history.size(), e.env->prompt.window),
      e.history.end());
  inputs.turn_index = turn.index;
  absl::StatusOr<FittedPrompt> prompt =
      FitPrompt(e.env->prompt, inputs, tokenizer_,
                options_.max_context - spec.sampling.max_tokens);
  if (!prompt.ok() || prompt->tokens.empty())
    return EndWithoutPrompt(e, prompt.status());
  SequenceRecord sequence;
  if (!spec.context.empty()) {
    absl::StatusOr<FittedPrompt> context =
        FitContextPrompt(e.env->prompt, inputs, spec.context, tokenizer_,
                         options_.max_context - spec.sampling.max_tokens);
    // Not a failure: the next worker would find the same.
    if (!context.ok()) return EndWithoutPrompt(e, context.status());
    sequence.context_tokens = std::move(context->tokens);
  }
  turn.prompt_tokens = static_cast<uint32_t>(prompt->tokens.size());
  turn.cut_tokens = prompt->cut_tokens;
  if (turn.cut_tokens > 0) {
    cut_tokens_.Increment(turn.cut_tokens);
    WarnOfCut(e, turn);
  }
  EngineRequest request;
  request.id = e.id;
  request.prompt = prompt->tokens;
  request.sampling = spec.sampling;
  request.noise = {.run_seed = spec.run_seed,
                   .step = spec.step,
                   .group = spec.group,
                   .sample = spec.sample,
                   .turn = turn.index};
  const absl::Status queued = engine_.Enqueue(std::move(request));
  if (!queued.ok()) return Fail(e, "engine", queued);
  ++generating_;
  prompt_tokens_.Increment(turn.prompt_tokens);
  sequence.turn = turn.index;
  sequence.begin = turn.prompt_tokens;
  sequence.tokens = std::move(prompt->tokens);
  e.record.sequences.push_back(std::move(sequence));
  e.record.turns.push_back(std::move(turn));
  e.asked = clock_.Now();
}

std::string AgentLoop::ContextText(const Episode& e) const {
  return absl::StrCat("model.max_context is ", options_.max_context,
                      ", of which sampling.train.max_tokens takes ",
                      e.record.spec.sampling.max_tokens);
}

void AgentLoop::EndWithoutPrompt(Episode& e, const absl::Status& status) {
  const bool too_long = absl::IsResourceExhausted(status);
  std::string text = absl::StrCat(
      "turn ", e.history.size(), ": ",
      status.ok() ? "found no tokens in the prompt" : status.message());
  const uint32_t limit = e.env->prompt.max_prompt_tokens;
  if (too_long && (limit == 0 || limit > options_.max_context -
                                             e.record.spec.sampling.max_tokens))
    absl::StrAppend(&text, "; ", ContextText(e),
                    ": raise the one or lower the "
                    "other");
  EndInError(e, status.ok() || too_long ? "prompt" : "template", text);
}

void AgentLoop::WarnOfCut(const Episode& e, const TurnRecord& turn) {
  if (std::exchange(warned_of_cut_, true)) return;
  LogWarning(absl::StrCat("prompts do not fit and are cut: found ",
                          turn.prompt_tokens + turn.cut_tokens, " tokens (",
                          e.record.spec.task_id, ", turn ", turn.index,
                          "), kept ", turn.prompt_tokens, "; ", ContextText(e),
                          ". Said once: ", metrics::kRolloutCutTokens.name,
                          " counts"));
}

void AgentLoop::OnGenerated(EngineResult result) {
  --generating_;
  sampled_tokens_.Increment(static_cast<double>(result.tokens.size()));
  Episode* e = Find(result.id);
  if (e == nullptr) return;  // cancelled meanwhile
  if (result.finish == FinishReason::kCancelled || result.tokens.empty() ||
      result.logprobs.size() != result.tokens.size()) {
    return Fail(*e, "engine",
                absl::AbortedError("the engine gave up the request"));
  }
  SequenceRecord& sequence = e->record.sequences.back();
  sequence.length = static_cast<uint32_t>(result.tokens.size());
  sequence.rollout_logprobs = std::move(result.logprobs);
  sequence.finish = result.finish;
  sequence.tokens.insert(sequence.tokens.end(), result.tokens.begin(),
                         result.tokens.end());
  if (result.finish == FinishReason::kStop) result.tokens.pop_back();
  e->model_text = tokenizer_.Decode(result.tokens);
  TurnRecord& turn = e->record.turns.back();
  turn.action_text = e->model_text;
  turn.generate_time = clock_.Now() - e->asked;
  e->stepping = true;
  e->asked = clock_.Now();
  const size_t index = e->record.sequences.size() - 1;
  const size_t teachers = e->record.spec.teachers.size();
  sequence.teacher.resize(teachers);
  e->scores_pending += teachers;
  for (size_t i = 0; i < teachers; ++i) SendScore(*e, index, i);
  SendStep(*e);
}

void AgentLoop::SendStep(Episode& e) {
  envs_.Step(
      e.env_episode, e.record.turns.back().index, e.model_text,
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
                         absl::IsFailedPrecondition(status) || IsAway(status);
    if (rebuild) {
      envs_.Close(std::exchange(e->env_episode, ""));
      ++e->resets;
    } else if (IsFinal(status) || TooManyFaults(*e, status)) {
      return Fail(*e, "environment", status);
    }
    spdlog::warn("{}: turn {} will be repeated: {}", Name(e->record.spec),
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
  TurnRecord& turn = e->record.turns.back();
  turn.executed_action = std::move(reply->executed_action);
  turn.valid = reply->action_valid;
  turn.admissible = reply->action_admissible;
  turn.reward = reply->observation.reward;
  turn.env_time = clock_.Now() - e->asked;
  env_seconds_.Observe(absl::ToDoubleSeconds(turn.env_time));
  e->history.push_back({e->observation.text, turn.executed_action});
  e->observation = std::move(reply->observation);
  StartTurn(*e);
}

void AgentLoop::SendScore(Episode& e, size_t sequence, size_t teacher) {
  const SequenceRecord& from = e.record.sequences[sequence];
  teacher::TeacherRequest request;
  request.model = e.record.spec.teachers[teacher];
  request.tokens = from.tokens;
  request.begin = from.begin;
  request.length = from.length;
  // Student and teacher log-probs are compared at one temperature; greedy
  // sampling reports its log-probs at 1 (EngineResult::logprobs).
  const float t = e.record.spec.sampling.temperature;
  request.temperature = t > 0 ? t : 1;
  teachers_->Score(
      std::move(request), [queue = events_, id = e.id, sequence, teacher,
                           sent = clock_.Now()](auto reply) {
        queue->Push([id, sequence, teacher, sent,
                     reply = std::move(reply)](AgentLoop& loop) mutable {
          loop.OnScore(id, sequence, teacher, sent, std::move(reply));
        });
      });
}

void AgentLoop::OnScore(uint64_t id, size_t sequence, size_t teacher,
                        absl::Time sent,
                        absl::StatusOr<teacher::TeacherReply> reply) {
  Episode* e = Find(id);
  if (e == nullptr) return;
  SequenceRecord& to = e->record.sequences[sequence];
  if (reply.ok() && reply->logprobs.size() != to.length) {
    reply = absl::InvalidArgumentError(absl::StrCat(
        "teacher ", reply->model, " returned ", reply->logprobs.size(),
        " log-probs, expected ", to.length));
  }
  if (!reply.ok()) {
    if (IsFinal(reply.status()) || TooManyFaults(*e, reply.status()))
      return Fail(*e, "teacher", reply.status());
    spdlog::warn("{}: scoring will be repeated: {}", Name(e->record.spec),
                 std::string(reply.status().message()));
    Post(options_.retry_max, [id, sequence, teacher](AgentLoop& loop) {
      Episode* episode = loop.Find(id);
      if (episode != nullptr) loop.SendScore(*episode, sequence, teacher);
    });
    return;
  }
  absl::Duration& wait = e->record.turns[to.turn].teacher_time;
  wait = std::max(wait, clock_.Now() - sent);
  teacher_seconds_.Observe(absl::ToDoubleSeconds(clock_.Now() - sent));
  to.teacher[teacher] = *std::move(reply);
  --e->scores_pending;
  MaybeComplete(*e);
}

void AgentLoop::FinishPlay(Episode& e) {
  e.playing = false;
  --playing_;
  if (!e.env_episode.empty()) envs_.Close(e.env_episode);
  EpisodeRecord& record = e.record;
  for (const TurnRecord& turn : record.turns) record.reward += turn.reward;
  record.success = e.observation.success;
  record.score = e.observation.task_score;
  record.done_reason = e.observation.done_reason;
  if (record.done_reason == envs::DoneReason::kError && record.error.empty()) {
    record.error = "environment";
    record.error_message = "the environment ended the episode with an error";
  }
  record.ended = clock_.Now();
  MaybeComplete(e);
}

void AgentLoop::EndInError(Episode& e, const std::string& kind,
                           const std::string& message) {
  spdlog::warn("{} ends: {}: {}", Name(e.record.spec), kind, message);
  e.observation.done_reason = envs::DoneReason::kError;
  e.record.error = kind;
  e.record.error_message = message;
  FinishPlay(e);
}

void AgentLoop::Fail(Episode& e, const std::string& kind, absl::Status status) {
  e.record.done_reason = envs::DoneReason::kError;
  e.record.error = kind;
  e.record.error_message = std::string(status.message());
  spdlog::error("{} failed: {}", Name(e.record.spec),
                std::string(status.message()));
  if (e.playing) {
    --playing_;
    if (!e.env_episode.empty()) envs_.Close(e.env_episode);
  }
  e.record.status = std::move(status);
  e.record.ended = clock_.Now();
  finished_.push_back(std::move(e.record));
  const uint64_t id = e.id;
  episodes_.erase(id);
}

void AgentLoop::MaybeComplete(Episode& e) {
  if (e.playing || e.scores_pending > 0) return;
  finished_.push_back(std::move(e.record));
  const uint64_t id = e.id;
  episodes_.erase(id);
}

void AgentLoop::Cancel(uint64_t lease_id) {
  for (auto it = episodes_.begin(); it != episodes_.end();) {
    Episode& e = *it->second;
    if (e.record.spec.lease_id != lease_id) {
      ++it;
      continue;
    }
    if (e.playing) {
      --playing_;
      if (!e.env_episode.empty()) envs_.Close(e.env_episode);
    }
    it = episodes_.erase(it);
  }
}

void AgentLoop::CancelAll() {
  engine_.CancelAll();
  generating_ = 0;
  for (auto& [id, e] : episodes_) {
    if (e->playing && !e->env_episode.empty()) envs_.Close(e->env_episode);
  }
  episodes_.clear();
  playing_ = 0;
  env_silence_ = {};
}

}  // namespace atod::rollout
