#include "services/envs/env_client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/rpc/rpc_status.h"
#include "common/tokenizer/unicode.h"
#include "grpcpp/alarm.h"
#include "services/envs/env_convert.h"

namespace atod::envs {
namespace {

// How long a look for servers waits for one of them.
constexpr absl::Duration kDescribeAttempt = absl::Seconds(1);
constexpr absl::Duration kCloseTimeout = absl::Seconds(10);

bool ServerLost(const absl::Status& status) {
  return absl::IsUnavailable(status);
}

}  // namespace

// What is needed to build the episode again. The mutex is held for moments
// only; calls on one episode come one after the other.
struct EnvClient::EpisodeState {
  absl::Mutex mutex;
  v1::ResetRequest reset;  // without replay_actions
  size_t server ABSL_GUARDED_BY(mutex) = 0;
  std::string remote_id ABSL_GUARDED_BY(mutex);  // empty: to be built
  // Executed so far, replayed ones included.
  std::vector<std::string> actions ABSL_GUARDED_BY(mutex);
  int builds ABSL_GUARDED_BY(mutex) = 0;
};

// One Reset or Step with its retries. Kept alive by the client's set until it
// has answered.
class EnvClient::Call : public std::enable_shared_from_this<Call> {
 public:
  Call(EnvClient& client, std::shared_ptr<EpisodeState> episode)
      : client_(client),
        episode_(std::move(episode)),
        deadline_(absl::Now() + client.options_.timeout),
        backoff_(client.options_.min_backoff) {}

  // Exactly one of the two is set before Start.
  std::function<void(absl::StatusOr<v1::ResetReply>)> reset_done;
  std::function<void(absl::StatusOr<StepResult>)> step_done;
  v1::StepRequest step;

  void Start() {
    if (cancelled())
      return Finish(absl::CancelledError("the environment client closes"));
    bool built;
    {
      absl::MutexLock lock(&episode_->mutex);
      built = !episode_->remote_id.empty();
    }
    if (built)
      SendStep();
    else
      SendReset();
  }

  void Cancel() {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (context_ != nullptr) context_->TryCancel();
    if (alarm_ != nullptr) alarm_->Cancel();
  }

 private:
  bool cancelled() {
    absl::MutexLock lock(&mutex_);
    return cancelled_;
  }

  grpc::ClientContext* NewContext() {
    absl::MutexLock lock(&mutex_);
    context_ = std::make_unique<grpc::ClientContext>();
    context_->set_deadline(absl::ToChronoTime(deadline_));
    if (cancelled_) context_->TryCancel();
    return context_.get();
  }

  void SendReset() {
    v1::EnvService::Stub* stub;
    {
      absl::MutexLock lock(&episode_->mutex);
      EpisodeState& e = *episode_;
      reset_ = e.reset;
      // The actions up to the turn that is to be played.
      const size_t n =
          step_done ? std::min<size_t>(step.turn_index(), e.actions.size())
                    : e.actions.size();
      for (size_t i = 0; i < n; ++i) reset_.add_replay_actions(e.actions[i]);
      // A repeated first Reset finds its episode again; a rebuild is new.
      if (e.builds > 0)
        reset_.set_request_id(
            absl::StrCat(e.reset.request_id(), "/rebuild-", e.builds));
      stub = client_.stubs_[e.server].get();
    }
    stub->async()->Reset(NewContext(), &reset_, &reset_reply_,
                         [self = shared_from_this()](grpc::Status status) {
                           self->OnReset(rpc::FromGrpc(status));
                         });
  }

  void OnReset(const absl::Status& status) {
    if (ServerLost(status)) return TryElsewhere(status);
    if (!status.ok()) return Finish(status);
    {
      absl::MutexLock lock(&episode_->mutex);
      EpisodeState& e = *episode_;
      e.remote_id = reset_reply_.episode_id();
      ++e.builds;
      e.actions.clear();
      for (const v1::StepReply& replayed : reset_reply_.replayed())
        e.actions.push_back(replayed.executed_action());
    }
    if (reset_done) return Finish(absl::OkStatus());
    SendStep();
  }

  void SendStep() {
    v1::EnvService::Stub* stub;
    {
      absl::MutexLock lock(&episode_->mutex);
      step.set_episode_id(episode_->remote_id);
      stub = client_.stubs_[episode_->server].get();
    }
    stub->async()->Step(NewContext(), &step, &step_reply_,
                        [self = shared_from_this()](grpc::Status status) {
                          self->OnStep(rpc::FromGrpc(status));
                        });
  }

  void OnStep(const absl::Status& status) {
    if (absl::IsNotFound(status) || ServerLost(status))
      return TryElsewhere(status);
    if (!status.ok()) return Finish(status);
    {
      absl::MutexLock lock(&episode_->mutex);
      if (episode_->actions.size() == step.turn_index())
        episode_->actions.push_back(step_reply_.executed_action());
    }
    Finish(absl::OkStatus());
  }

  // Builds the episode again, on the next server, after a pause.
  void TryElsewhere(const absl::Status& status) {
    const absl::Time next = absl::Now() + backoff_;
    if (next >= deadline_) return Finish(status);
    backoff_ = std::min(backoff_ * 2, client_.options_.max_backoff);
    {
      absl::MutexLock lock(&episode_->mutex);
      episode_->remote_id.clear();
      episode_->server = client_.NextServer();
    }
    absl::MutexLock lock(&mutex_);
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(absl::ToChronoTime(next), [self = shared_from_this()](bool) {
      std::unique_ptr<grpc::Alarm> fired;
      {
        absl::MutexLock lock(&self->mutex_);
        fired = std::move(self->alarm_);
      }
      self->Start();
    });
    if (cancelled_) alarm_->Cancel();
  }

  void Finish(const absl::Status& status) {
    if (reset_done) {
      if (status.ok())
        reset_done(std::move(reset_reply_));
      else
        reset_done(status);
    } else {
      if (status.ok())
        step_done(FromProto(step_reply_));
      else
        step_done(status);
    }
    const std::shared_ptr<Call> self = shared_from_this();
    absl::MutexLock lock(&client_.mutex_);
    client_.calls_.erase(self);
  }

  EnvClient& client_;
  const std::shared_ptr<EpisodeState> episode_;
  const absl::Time deadline_;
  absl::Duration backoff_;
  v1::ResetRequest reset_;
  v1::ResetReply reset_reply_;
  v1::StepReply step_reply_;

  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<grpc::ClientContext> context_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<grpc::Alarm> alarm_ ABSL_GUARDED_BY(mutex_);
};

EnvClient::EnvClient(std::vector<std::shared_ptr<grpc::Channel>> channels,
                     EnvClientOptions options)
    : options_(options) {
  for (const std::shared_ptr<grpc::Channel>& channel : channels)
    stubs_.push_back(v1::EnvService::NewStub(channel));
}

EnvClient::~EnvClient() {
  std::vector<std::shared_ptr<Call>> calls;
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    calls.assign(calls_.begin(), calls_.end());
  }
  for (const std::shared_ptr<Call>& call : calls) call->Cancel();
  calls.clear();
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](EnvClient* c) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        return c->calls_.empty() && c->closing_ == 0;
      },
      this));
}

size_t EnvClient::NextServer() {
  absl::MutexLock lock(&mutex_);
  return next_server_++ % stubs_.size();
}

absl::StatusOr<EnvDescription> EnvClient::Describe(const std::string& env) {
  const absl::Time deadline = absl::Now() + options_.timeout;
  v1::DescribeRequest request;
  request.set_env(env);
  for (;;) {
    absl::StatusOr<EnvDescription> found = absl::UnavailableError("");
    for (const std::unique_ptr<v1::EnvService::Stub>& stub : stubs_) {
      grpc::ClientContext context;
      context.set_wait_for_ready(true);
      context.set_deadline(absl::ToChronoTime(
          std::min(deadline, absl::Now() + kDescribeAttempt)));
      v1::DescribeReply reply;
      absl::Status status =
          rpc::FromGrpc(stub->Describe(&context, request, &reply));
      if (status.ok() && reply.envs_size() != 1)
        status = absl::InternalError(
            absl::StrCat("Describe: found ", reply.envs_size(),
                         " environments, expected '", env, "'"));
      if (!status.ok()) {
        if (!found.ok()) found = status;
        continue;
      }
      EnvDescription description = FromProto(reply.envs(0));
      if (found.ok()) {
        for (size_t i = 0; i < found->splits.size(); ++i)
          if (i >= description.splits.size() ||
              description.splits[i].content_hash !=
                  found->splits[i].content_hash)
            return absl::FailedPreconditionError(absl::StrCat(
                "servers of '", env, "' differ in split '",
                found->splits[i].name, "', expected the same tasks"));
      } else {
        found = std::move(description);
      }
    }
    const bool try_again = absl::IsUnavailable(found.status()) ||
                           absl::IsDeadlineExceeded(found.status());
    if (!try_again || absl::Now() >= deadline) return found;
  }
}

void EnvClient::Launch(std::shared_ptr<Call> call) {
  {
    absl::MutexLock lock(&mutex_);
    calls_.insert(call);
    if (closed_) call->Cancel();
  }
  call->Start();
}

void EnvClient::Reset(const ResetRequest& request,
                      std::function<void(absl::StatusOr<ResetResult>)> done) {
  auto episode = std::make_shared<EpisodeState>();
  std::string id;
  {
    absl::MutexLock lock(&mutex_);
    id = absl::StrCat("episode-", next_id_++);
  }
  {
    absl::MutexLock lock(&episode->mutex);
    episode->server = NextServer();
    episode->reset = ToProto(request);
    episode->reset.clear_replay_actions();
    episode->actions = request.replay_actions;
  }
  auto call = std::make_shared<Call>(*this, episode);
  call->reset_done = [this, id, episode, done = std::move(done)](
                         absl::StatusOr<v1::ResetReply> reply) {
    if (!reply.ok()) return done(reply.status());
    ResetResult result = FromProto(*reply);
    result.episode_id = id;
    {
      absl::MutexLock lock(&mutex_);
      episodes_[id] = episode;
    }
    done(std::move(result));
  };
  Launch(std::move(call));
}

void EnvClient::Step(const std::string& episode_id, uint32_t turn_index,
                     const std::string& model_text,
                     std::function<void(absl::StatusOr<StepResult>)> done) {
  v1::StepRequest request;
  request.set_turn_index(turn_index);
  request.set_model_text(IsValidUtf8(model_text) ? model_text
                                                 : ToValidUtf8(model_text));
  StartStep(episode_id, std::move(request), std::move(done));
}

void EnvClient::StepAction(
    const std::string& episode_id, uint32_t turn_index,
    const std::string& action,
    std::function<void(absl::StatusOr<StepResult>)> done) {
  v1::StepRequest request;
  request.set_turn_index(turn_index);
  request.set_action(action);
  StartStep(episode_id, std::move(request), std::move(done));
}

void EnvClient::StartStep(
    const std::string& episode_id, v1::StepRequest request,
    std::function<void(absl::StatusOr<StepResult>)> done) {
  std::shared_ptr<EpisodeState> episode;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = episodes_.find(episode_id);
    if (it != episodes_.end()) episode = it->second;
  }
  if (episode == nullptr)
    return done(
        absl::NotFoundError(absl::StrCat("no episode '", episode_id, "'")));
  auto call = std::make_shared<Call>(*this, std::move(episode));
  call->step = std::move(request);
  call->step_done = std::move(done);
  Launch(std::move(call));
}

void EnvClient::Close(const std::string& episode_id) {
  std::shared_ptr<EpisodeState> episode;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = episodes_.find(episode_id);
    if (it == episodes_.end()) return;
    episode = std::move(it->second);
    episodes_.erase(it);
    ++closing_;
  }
  struct Closing {
    grpc::ClientContext context;
    v1::CloseRequest request;
    v1::CloseReply reply;
  };
  auto closing = std::make_shared<Closing>();
  rpc::SetTimeout(closing->context, kCloseTimeout);
  size_t server;
  {
    absl::MutexLock lock(&episode->mutex);
    closing->request.add_episode_ids(episode->remote_id);
    server = episode->server;
  }
  stubs_[server]->async()->Close(&closing->context, &closing->request,
                                 &closing->reply,
                                 [this, closing](grpc::Status) {
                                   // A server that did not hear it frees the
                                   // episode by its lease.
                                   absl::MutexLock lock(&mutex_);
                                   --closing_;
                                 });
}

}  // namespace atod::envs
