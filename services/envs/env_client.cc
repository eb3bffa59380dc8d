#include "services/envs/env_client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/rpc/channel.h"
#include "common/rpc/rpc_status.h"
#include "common/tokenizer/unicode.h"
#include "services/envs/env_convert.h"

namespace atod::envs {
namespace {

// What Describe waits for one server.
constexpr absl::Duration kLook = absl::Seconds(5);
constexpr absl::Duration kCloseTimeout = absl::Seconds(10);

// Lives until it is answered.
template <typename Request, typename Reply>
struct Call {
  grpc::ClientContext context;
  Request request;
  Reply reply;
};

// What a call came to, with the server's name.
absl::Status Named(const grpc::Status& status, const std::string& server) {
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    return absl::FailedPreconditionError(
        absl::StrCat(server, ": found another service, expected atod-envs"));
  }
  return WithFile(rpc::FromGrpc(status), server);
}

absl::Status SameTasks(const std::string& name, const EnvDescription& found,
                       const std::string& first,
                       const EnvDescription& expected) {
  for (size_t i = 0; i < expected.splits.size(); ++i) {
    const SplitInfo& split = expected.splits[i];
    if (i < found.splits.size() &&
        found.splits[i].content_hash == split.content_hash) {
      continue;
    }
    return absl::FailedPreconditionError(absl::StrCat(
        name, ": content_hash of ", expected.name, "/", split.name, ": found ",
        i < found.splits.size() ? found.splits[i].content_hash : "none",
        ", expected ", split.content_hash, " as at ", first));
  }
  return absl::OkStatus();
}

}  // namespace

EnvClient::EnvClient(std::vector<EnvServer> servers, absl::Duration timeout)
    : timeout_(timeout) {
  for (EnvServer& server : servers) {
    servers_.push_back({absl::StrCat("environment server ", server.address),
                        v1::EnvService::NewStub(std::move(server.channel))});
  }
}

EnvClient::~EnvClient() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  for (grpc::ClientContext* context : calls_) context->TryCancel();
  mutex_.Await(absl::Condition(
      +[](EnvClient* c)
           ABSL_NO_THREAD_SAFETY_ANALYSIS { return c->calls_.empty(); },
      this));
}

void EnvClient::Begin(grpc::ClientContext& context, absl::Duration timeout) {
  rpc::SetTimeout(context, timeout);
  absl::MutexLock lock(&mutex_);
  calls_.insert(&context);
  if (closed_) context.TryCancel();
}

void EnvClient::End(grpc::ClientContext& context) {
  absl::MutexLock lock(&mutex_);
  calls_.erase(&context);
}

absl::StatusOr<EnvDescription> EnvClient::Describe(const std::string& env) {
  v1::DescribeRequest request;
  request.set_env(env);
  absl::StatusOr<EnvDescription> found = absl::UnavailableError("no server");
  std::string first;
  for (const Server& server : servers_) {
    grpc::ClientContext context;
    Begin(context, std::min(timeout_, kLook));
    v1::DescribeReply reply;
    absl::Status status =
        Named(server.stub->Describe(&context, request, &reply), server.name);
    End(context);
    if (status.ok() && reply.envs_size() != 1) {
      status = absl::FailedPreconditionError(
          absl::StrCat(server.name, ": found ", reply.envs_size(),
                       " environments, expected '", env, "'"));
    }
    if (IsAway(status)) {
      if (!found.ok()) found = status;
      continue;
    }
    if (!status.ok()) return status;
    EnvDescription description = FromProto(reply.envs(0));
    if (!found.ok()) {
      first = server.name;
      found = std::move(description);
      continue;
    }
    status = SameTasks(server.name, description, first, *found);
    if (!status.ok()) return status;
  }
  return found;
}

void EnvClient::Reset(const ResetRequest& request,
                      std::function<void(absl::StatusOr<ResetResult>)> done) {
  const size_t index = next_server_++ % servers_.size();
  const auto call = std::make_shared<Call<v1::ResetRequest, v1::ResetReply>>();
  call->request = ToProto(request);
  Begin(call->context, timeout_);
  servers_[index].stub->async()->Reset(
      &call->context, &call->request, &call->reply,
      [this, index, call, done = std::move(done)](grpc::Status status) {
        if (status.ok()) {
          ResetResult result = FromProto(call->reply);
          result.episode_id = absl::StrCat(index, "/", result.episode_id);
          done(std::move(result));
        } else {
          done(Named(status, servers_[index].name));
        }
        End(call->context);
      });
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

const EnvClient::Server* EnvClient::Find(const std::string& episode_id,
                                         std::string& name) const {
  const size_t slash = episode_id.find('/');
  size_t index = 0;
  if (slash == std::string::npos ||
      !absl::SimpleAtoi(episode_id.substr(0, slash), &index) ||
      index >= servers_.size()) {
    return nullptr;
  }
  name = episode_id.substr(slash + 1);
  return &servers_[index];
}

void EnvClient::StartStep(
    const std::string& episode_id, v1::StepRequest request,
    std::function<void(absl::StatusOr<StepResult>)> done) {
  const Server* server = Find(episode_id, *request.mutable_episode_id());
  if (server == nullptr)
    return done(
        absl::NotFoundError(absl::StrCat("no episode '", episode_id, "'")));
  const auto call = std::make_shared<Call<v1::StepRequest, v1::StepReply>>();
  call->request = std::move(request);
  Begin(call->context, timeout_);
  server->stub->async()->Step(
      &call->context, &call->request, &call->reply,
      [this, server, call, done = std::move(done)](grpc::Status status) {
        if (status.ok()) {
          done(FromProto(call->reply));
        } else {
          done(Named(status, server->name));
        }
        End(call->context);
      });
}

void EnvClient::Close(const std::string& episode_id) {
  const auto call = std::make_shared<Call<v1::CloseRequest, v1::CloseReply>>();
  const Server* server = Find(episode_id, *call->request.add_episode_ids());
  if (server == nullptr) return;
  Begin(call->context, kCloseTimeout);
  // A server that does not hear it frees the episode by its lease.
  server->stub->async()->Close(
      &call->context, &call->request, &call->reply,
      [this, call](grpc::Status) { End(call->context); });
}

}  // namespace atod::envs
