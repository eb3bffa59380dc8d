#include "services/learner/peers_client.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/log.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/rpc/address.h"
#include "common/rpc/channel.h"
#include "common/rpc/rpc_status.h"
#include "common/tokenizer/difference.h"

namespace atod::learner {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(10);

// Calls until the peer answers: `call` runs one RPC. Only errors that say that
// nobody is there are tried again.
absl::Status Ask(
    const std::string& who, const KeepTrying& keep_trying,
    const std::function<grpc::Status(grpc::ClientContext&)>& call) {
  for (int tries = 0;; ++tries) {
    grpc::ClientContext context;
    rpc::SetTimeout(context, kCallTimeout);
    const absl::Status status = rpc::FromGrpc(call(context));
    if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) {
      if (tries > 0 && status.ok()) spdlog::info("{} answers", who);
      return status;
    }
    if (tries % 20 == 0)
      spdlog::info("waiting for {}: {}", who, std::string(status.message()));
    if (!keep_trying())
      return absl::CancelledError(absl::StrCat("gave up waiting for ", who));
  }
}

const v1::Split* Find(const v1::EnvDescription& env, const std::string& name) {
  for (const v1::Split& split : env.splits())
    if (split.name() == name) return &split;
  return nullptr;
}

absl::Status SameSplit(const std::string& address,
                       const v1::EnvDescription& found,
                       const v1::EnvDescription& expected) {
  for (const v1::Split& split : expected.splits()) {
    const v1::Split* other = Find(found, split.name());
    if (other != nullptr && other->size() == split.size() &&
        other->content_hash() == split.content_hash()) {
      continue;
    }
    return absl::FailedPreconditionError(absl::StrCat(
        "environment server ", address, ": split ", split.name(), ": found ",
        other == nullptr ? "nothing" : other->content_hash(), ", expected ",
        split.content_hash(), " as on the first server"));
  }
  return absl::OkStatus();
}

// A server that was started with another configuration plays another
// environment.
absl::Status SameSettings(const std::string& address,
                          const v1::EnvDescription& found,
                          const v1::EnvConfig& expected) {
  const auto check = [&](const char* key, const auto& theirs,
                         const auto& ours) {
    if (theirs == ours) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("environment server ", address, ": ", key, ": found ",
                     theirs, ", expected ", ours, " as in this run"));
  };
  ATOD_RETURN_IF_ERROR(
      check("env.prompt_set", found.prompt().name(), expected.prompt_set()));
  // The compact prompts show no history, whatever is configured.
  if (expected.prompt_set() != "compact")
    ATOD_RETURN_IF_ERROR(check("env.history_length", found.prompt().window(),
                               expected.history_length()));
  return check("env.max_turns", found.default_max_turns(),
               expected.max_turns());
}

}  // namespace

absl::StatusOr<std::unique_ptr<EnvPeers>> EnvPeers::Connect(
    const v1::RunConfig& config, KeepTrying keep_trying) {
  auto peers = std::make_unique<EnvPeers>();
  peers->env_ = config.env().name();
  peers->keep_trying_ = std::move(keep_trying);
  ATOD_ASSIGN_OR_RETURN(const std::vector<rpc::Address> addresses,
                        rpc::ParseAddresses(config.rpc().envs(), "rpc.envs"));
  for (const rpc::Address& address : addresses) {
    const std::string text = address.ToString();
    ATOD_ASSIGN_OR_RETURN(
        const std::shared_ptr<grpc::Channel> channel,
        rpc::Connect(text, rpc::Security(config.rpc()), "rpc.envs"));
    peers->stubs_.push_back(v1::EnvService::NewStub(channel));
    peers->addresses_.push_back(text);
    v1::DescribeRequest request;
    request.set_env(peers->env_);
    v1::DescribeReply reply;
    ATOD_RETURN_IF_ERROR(Ask(absl::StrCat("environment server ", text),
                             peers->keep_trying_, [&](auto& context) {
                               return peers->stubs_.back()->Describe(
                                   &context, request, &reply);
                             }));
    const auto env = std::find_if(
        reply.envs().begin(), reply.envs().end(),
        [&](const v1::EnvDescription& e) { return e.name() == peers->env_; });
    if (env == reply.envs().end()) {
      return absl::FailedPreconditionError(
          absl::StrCat("environment server ", text, ": env.name: found no '",
                       peers->env_, "', expected it to be served"));
    }
    ATOD_RETURN_IF_ERROR(SameSettings(text, *env, config.env()));
    if (peers->stubs_.size() == 1) {
      peers->description_ = *env;
    } else {
      ATOD_RETURN_IF_ERROR(SameSplit(text, *env, peers->description_));
    }
  }
  return peers;
}

absl::StatusOr<v1::Split> EnvPeers::GetSplit(const std::string& split) {
  const v1::Split* found = Find(description_, split);
  if (found != nullptr && found->size() > 0) return *found;
  std::vector<std::string> names;
  for (const v1::Split& s : description_.splits())
    if (s.size() > 0) names.push_back(s.name());
  return absl::NotFoundError(absl::StrCat(
      "environment ", env_, ": split: found '", split,
      "' without tasks, expected one of: ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<v1::Task> EnvPeers::GetTask(const std::string& split,
                                           uint32_t index) {
  const auto known = tasks_.find({split, index});
  if (known != tasks_.end()) return known->second;
  v1::GetTaskRequest request;
  request.set_env(env_);
  request.set_split(split);
  request.set_index(index);
  v1::Task task;
  size_t server = 0;  // the next one when this does not answer
  ATOD_RETURN_IF_ERROR(
      Ask("an environment server", keep_trying_, [&](auto& context) {
        return stubs_[server++ % stubs_.size()]->GetTask(&context, request,
                                                         &task);
      }));
  return tasks_[{split, index}] = task;
}

namespace {

// The models of a teacher process, those of the configuration in its order.
absl::StatusOr<std::vector<v1::ModelInfo>> CheckTeacher(
    const v1::RunConfig& config, const std::string& address,
    const std::string& tokenizer_hash, const KeepTrying& keep_trying) {
  std::vector<v1::ModelInfo> models;
  ATOD_ASSIGN_OR_RETURN(
      const std::shared_ptr<grpc::Channel> channel,
      rpc::Connect(address, rpc::Security(config.rpc()), "rpc.teacher"));
  const auto stub = v1::TeacherService::NewStub(channel);
  v1::ListModelsReply reply;
  ATOD_RETURN_IF_ERROR(Ask(
      absl::StrCat("teacher ", address), keep_trying,
      [&](auto& context) { return stub->ListModels(&context, {}, &reply); }));
  for (const v1::TeacherConfig& teacher : config.teachers()) {
    const auto model = std::find_if(
        reply.models().begin(), reply.models().end(),
        [&](const v1::ModelInfo& m) { return m.name() == teacher.name(); });
    if (model == reply.models().end()) {
      return absl::FailedPreconditionError(
          absl::StrCat("teacher ", address, ": teachers: found no model '",
                       teacher.name(), "', expected it to be served"));
    }
    if (model->tokenizer_hash() != tokenizer_hash) {
      return absl::FailedPreconditionError(absl::StrCat(
          "teacher ", address, ": ", teacher.name(), ".tokenizer_hash: ",
          HashDifference(model->tokenizer_hash(), tokenizer_hash),
          ", the student's"));
    }
    models.push_back(*model);
  }
  return models;
}

}  // namespace

absl::StatusOr<std::vector<v1::ModelInfo>> CheckTeachers(
    const v1::RunConfig& config, const std::string& tokenizer_hash,
    const KeepTrying& keep_trying) {
  ATOD_ASSIGN_OR_RETURN(
      const std::vector<rpc::Address> addresses,
      rpc::ParseAddresses(config.rpc().teacher(), "rpc.teacher"));
  std::vector<v1::ModelInfo> models;
  for (const rpc::Address& a : addresses) {
    const std::string address = a.ToString();
    ATOD_ASSIGN_OR_RETURN(
        std::vector<v1::ModelInfo> found,
        CheckTeacher(config, address, tokenizer_hash, keep_trying));
    if (models.empty()) models = found;
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i].weights_hash() == models[i].weights_hash()) continue;
      return absl::FailedPreconditionError(absl::StrCat(
          "teacher ", address, ": ", found[i].name(), ".weights_hash: found ",
          found[i].weights_hash(), ", expected ", models[i].weights_hash(),
          " as at ", addresses[0].ToString()));
    }
  }
  return models;
}

}  // namespace atod::learner
