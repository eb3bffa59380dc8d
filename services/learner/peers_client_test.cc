#include "services/learner/peers_client.h"

#include <atomic>

#include "absl/strings/str_cat.h"
#include "common/config/config.h"
#include "common/rpc/server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::learner {
namespace {

using ::testing::HasSubstr;

class FakeEnvService final : public v1::EnvService::CallbackService {
 public:
  explicit FakeEnvService(const std::string& hash) : hash_(hash) {}
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const v1::DescribeRequest*,
                                     v1::DescribeReply* reply) override {
    v1::EnvDescription& env = *reply->add_envs();
    env.set_name("alfworld");
    env.mutable_prompt()->set_name(prompt_set);
    env.mutable_prompt()->set_window(2);
    env.set_default_max_turns(50);
    v1::Split& split = *env.add_splits();
    split.set_name("train");
    split.set_size(3);
    split.set_content_hash(hash_);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  grpc::ServerUnaryReactor* GetTask(grpc::CallbackServerContext* context,
                                    const v1::GetTaskRequest* request,
                                    v1::Task* reply) override {
    ++asked;
    reply->set_task_id(absl::StrCat("task", request->index()));
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  std::atomic<int> asked = 0;
  std::string prompt_set = "paper";

 private:
  const std::string hash_;
};

class FakeTeacherService final : public v1::TeacherService::CallbackService {
 public:
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest*,
                                       v1::ListModelsReply* reply) override {
    reply->add_models()->set_name("teacher");
    reply->mutable_models(0)->set_tokenizer_hash("t");
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

std::unique_ptr<rpc::RpcServer> Start(grpc::Service& service) {
  return rpc::Listen({.address = "127.0.0.1:0", .services = {&service}})
      .value();
}

v1::RunConfig Config(const std::string& envs, const std::string& teacher) {
  v1::RunConfig config =
      config::ParseRunConfig("", "test",
                             {"rpc.envs=" + envs, "rpc.teacher=" + teacher})
          ->config;
  config.add_teachers()->set_name("teacher");
  return config;
}

bool Never() { return false; }

TEST(EnvPeersTest, TasksAreAskedForOnceAndSplitsAreFound) {
  FakeEnvService service("h");
  const auto server = Start(service);
  const auto peers =
      EnvPeers::Connect(Config(server->address(), "127.0.0.1:1"), Never);
  ASSERT_TRUE(peers.ok()) << peers.status();
  EXPECT_EQ((*peers)->GetSplit("train")->content_hash(), "h");
  EXPECT_THAT((*peers)->GetSplit("test").status().message(),
              HasSubstr("expected one of: train"));
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ((*peers)->GetTask("train", 2)->task_id(), "task2");
  EXPECT_EQ(service.asked, 1);
}

TEST(EnvPeersTest, ServersWithOtherTasksAreRefusedByAddress) {
  FakeEnvService a("h"), b("other");
  const auto server_a = Start(a), server_b = Start(b);
  const auto peers = EnvPeers::Connect(
      Config(server_a->address() + "," + server_b->address(), "127.0.0.1:1"),
      Never);
  EXPECT_EQ(peers.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(peers.status().message(), HasSubstr(server_b->address()));
}

TEST(EnvPeersTest, AServerOfAnotherConfigurationIsRefusedWithTheDifference) {
  FakeEnvService service("h");
  service.prompt_set = "compact";
  const auto server = Start(service);
  const auto peers =
      EnvPeers::Connect(Config(server->address(), "127.0.0.1:1"), Never);
  EXPECT_EQ(peers.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(peers.status().message(),
              HasSubstr("env.prompt_set: found compact, expected paper"));
}

TEST(EnvPeersTest, AServerThatIsAwayIsWaitedForUntilToldToGiveUp) {
  int tries = 0;
  const auto peers = EnvPeers::Connect(Config("127.0.0.1:1", "127.0.0.1:1"),
                                       [&] { return ++tries < 3; });
  EXPECT_TRUE(absl::IsCancelled(peers.status())) << peers.status();
  EXPECT_EQ(tries, 3);
}

TEST(CheckTeachersTest, NamesAndTokenizersMustFit) {
  FakeTeacherService service;
  const auto server = Start(service);
  v1::RunConfig config = Config("127.0.0.1:1", server->address());
  EXPECT_TRUE(CheckTeachers(config, "t", Never).ok());
  EXPECT_THAT(CheckTeachers(config, "other", Never).status().message(),
              HasSubstr("tokenizer_hash: hash: found t, expected other"));
  config.add_teachers()->set_name("second");
  EXPECT_THAT(CheckTeachers(config, "t", Never).status().message(),
              HasSubstr("no model 'second'"));
}

}  // namespace
}  // namespace atod::learner
