#include "services/envs/env_service.h"

#include <cmath>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rpc/rpc_status.h"
#include "services/envs/env_convert.h"

namespace atod::envs {
namespace {

// A session with so many replies waiting is not read until some are out.
constexpr size_t kMaxWaitingReplies = 1024;

absl::Status Refused(const std::string& what, const std::string& expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("found ", what, ", expected ", expected));
}

template <typename Repeated>
std::vector<std::string> Strings(const Repeated& field) {
  return {field.begin(), field.end()};
}

}  // namespace

absl::Status EnvServiceImpl::Describe(const v1::DescribeRequest& request,
                                      v1::DescribeReply& reply) {
  for (const auto& [name, env] : table_.environments())
    if (request.env().empty() || request.env() == name)
      *reply.add_envs() = ToProto(env->description());
  if (reply.envs_size() == 0)
    return absl::NotFoundError(
        absl::StrCat("no environment '", request.env(), "' here"));
  return absl::OkStatus();
}

absl::Status EnvServiceImpl::GetTask(const v1::GetTaskRequest& request,
                                     v1::Task& reply) {
  const auto env = table_.environments().find(request.env());
  if (env == table_.environments().end())
    return absl::NotFoundError(
        absl::StrCat("no environment '", request.env(), "' here"));
  ATOD_ASSIGN_OR_RETURN(const TaskInfo task,
                        env->second->GetTask(request.split(), request.index()));
  reply = ToProto(task);
  return absl::OkStatus();
}

absl::Status EnvServiceImpl::Reset(const v1::ResetRequest& request,
                                   v1::ResetReply& reply) {
  ATOD_ASSIGN_OR_RETURN(const ResetResult result,
                        table_.Reset(FromProto(request)));
  reply = ToProto(result);
  reply.set_lease_seconds(
      static_cast<uint32_t>(std::ceil(absl::ToDoubleSeconds(table_.lease()))));
  return absl::OkStatus();
}

absl::Status EnvServiceImpl::Step(const v1::StepRequest& request,
                                  v1::StepReply& reply) {
  if (request.input_case() == v1::StepRequest::INPUT_NOT_SET)
    return Refused("no input", "model_text or action");
  const bool is_action = request.input_case() == v1::StepRequest::kAction;
  ATOD_ASSIGN_OR_RETURN(
      const StepResult result,
      table_.Step(request.episode_id(), request.turn_index(),
                  {.text = is_action ? request.action() : request.model_text(),
                   .is_action = is_action}));
  reply = ToProto(result);
  return absl::OkStatus();
}

absl::Status EnvServiceImpl::KeepAlive(const v1::KeepAliveRequest& request,
                                       v1::KeepAliveReply& reply) {
  for (const std::string& id : table_.KeepAlive(Strings(request.episode_ids())))
    reply.add_unknown_ids(id);
  return absl::OkStatus();
}

absl::Status EnvServiceImpl::Close(const v1::CloseRequest& request,
                                   v1::CloseReply&) {
  table_.Close(Strings(request.episode_ids()));
  return absl::OkStatus();
}

v1::EnvReply EnvServiceImpl::Answer(const v1::EnvRequest& request) {
  v1::EnvReply reply;
  reply.set_tag(request.tag());
  absl::Status status = Refused("an empty call",
                                "reset, step, close or "
                                "keep_alive");
  switch (request.call_case()) {
    case v1::EnvRequest::kReset:
      status = Reset(request.reset(), *reply.mutable_reset());
      break;
    case v1::EnvRequest::kStep:
      status = Step(request.step(), *reply.mutable_step());
      break;
    case v1::EnvRequest::kClose:
      status = Close(request.close(), *reply.mutable_close());
      break;
    case v1::EnvRequest::kKeepAlive:
      status = KeepAlive(request.keep_alive(), *reply.mutable_keep_alive());
      break;
    case v1::EnvRequest::CALL_NOT_SET:
      break;
  }
  if (!status.ok()) {
    reply.clear_reply();
    reply.set_code(static_cast<int>(status.code()));
    reply.set_message(std::string(status.message()));
    Count(status);
  }
  return reply;
}

void EnvServiceImpl::Count(const absl::Status& status) {
  if (!status.ok() && metrics_ != nullptr) metrics_->OnError(status.code());
}

grpc::ServerUnaryReactor* EnvServiceImpl::Finish(
    grpc::CallbackServerContext* context, const absl::Status& status) {
  Count(status);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpc(status));
  return reactor;
}

grpc::ServerUnaryReactor* EnvServiceImpl::Describe(
    grpc::CallbackServerContext* context, const v1::DescribeRequest* request,
    v1::DescribeReply* reply) {
  return Finish(context, Describe(*request, *reply));
}

grpc::ServerUnaryReactor* EnvServiceImpl::GetTask(
    grpc::CallbackServerContext* context, const v1::GetTaskRequest* request,
    v1::Task* reply) {
  return Finish(context, GetTask(*request, *reply));
}

grpc::ServerUnaryReactor* EnvServiceImpl::Reset(
    grpc::CallbackServerContext* context, const v1::ResetRequest* request,
    v1::ResetReply* reply) {
  return Finish(context, Reset(*request, *reply));
}

grpc::ServerUnaryReactor* EnvServiceImpl::Step(
    grpc::CallbackServerContext* context, const v1::StepRequest* request,
    v1::StepReply* reply) {
  return Finish(context, Step(*request, *reply));
}

grpc::ServerUnaryReactor* EnvServiceImpl::KeepAlive(
    grpc::CallbackServerContext* context, const v1::KeepAliveRequest* request,
    v1::KeepAliveReply* reply) {
  return Finish(context, KeepAlive(*request, *reply));
}

grpc::ServerUnaryReactor* EnvServiceImpl::Close(
    grpc::CallbackServerContext* context, const v1::CloseRequest* request,
    v1::CloseReply* reply) {
  return Finish(context, Close(*request, *reply));
}

// One stream: reads a call, answers it, reads the next. One write at a time;
// replies that wait are in order.
class EnvServiceImpl::SessionReactor final
    : public grpc::ServerBidiReactor<v1::EnvRequest, v1::EnvReply> {
 public:
  explicit SessionReactor(EnvServiceImpl& service) : service_(service) {}

  void Start() { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      absl::MutexLock lock(&mutex_);
      read_closed_ = true;
      MaybeEnd();
      return;
    }
    v1::EnvReply reply = service_.Answer(request_);
    absl::MutexLock lock(&mutex_);
    if (ended_) return;
    waiting_.push_back(std::move(reply));
    MaybeWrite();
    if (waiting_.size() < kMaxWaitingReplies)
      StartRead(&request_);
    else
      paused_ = true;
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    waiting_.pop_front();
    if (!ok) return End(grpc::Status::CANCELLED);
    MaybeWrite();
    if (!ended_ && paused_ && waiting_.size() < kMaxWaitingReplies) {
      paused_ = false;
      StartRead(&request_);
    }
    MaybeEnd();
  }

  void OnCancel() override {
    absl::MutexLock lock(&mutex_);
    End(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    {
      absl::MutexLock lock(&service_.mutex_);
      service_.sessions_.erase(this);
    }
    delete this;
  }

  void Drain() {
    absl::MutexLock lock(&mutex_);
    End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server drains"));
  }

 private:
  void MaybeWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || ended_ || waiting_.empty()) return;
    writing_ = true;
    StartWrite(&waiting_.front());
  }
  void MaybeEnd() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (read_closed_ && waiting_.empty()) End(grpc::Status::OK);
  }
  void End(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!std::exchange(ended_, true))
      grpc::ServerBidiReactor<v1::EnvRequest, v1::EnvReply>::Finish(status);
  }

  EnvServiceImpl& service_;
  v1::EnvRequest request_;
  absl::Mutex mutex_;
  // The first one is being written while `writing_`.
  std::deque<v1::EnvReply> waiting_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  bool read_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

grpc::ServerBidiReactor<v1::EnvRequest, v1::EnvReply>* EnvServiceImpl::Session(
    grpc::CallbackServerContext*) {
  auto* session = new SessionReactor(*this);
  bool draining;
  {
    absl::MutexLock lock(&mutex_);
    sessions_.insert(session);
    draining = draining_;
  }
  if (draining)
    session->Drain();
  else
    session->Start();
  return session;
}

void EnvServiceImpl::EndSessions() {
  // Sessions leave under this lock, so none dies during the walk.
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  for (SessionReactor* session : sessions_) session->Drain();
}

}  // namespace atod::envs
