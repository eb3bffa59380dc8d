// Server and client together: real gRPC on loopback, a fake environment.
#include "services/envs/env_service.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/envs/env_client.h"
#include "services/envs/fake_environment.h"
#include "services/envs/local_caller.h"

namespace atod::envs {
namespace {

EnvironmentMap Fakes(const std::string& hash = "hash") {
  return {{"fake", std::make_shared<FakeEnvironment>(hash)}};
}

// One life of a server.
struct Server {
  explicit Server(uint16_t port = 0, const std::string& hash = "hash")
      : table(Fakes(hash), absl::Seconds(60), &clock, &metrics),
        service(table, &metrics) {
    auto started = rpc::Listen(
        {.address = absl::StrCat("127.0.0.1:", port), .services = {&service}});
    EXPECT_TRUE(started.ok()) << started.status();
    rpc = *std::move(started);
  }
  ~Server() {
    service.EndSessions();
    rpc->Shutdown(absl::ZeroDuration());
  }
  std::shared_ptr<grpc::Channel> Channel() const {
    return *rpc::Connect(rpc->address());
  }

  FakeClock clock;
  metrics::Registry registry;
  EnvMetrics metrics{registry};
  EpisodeTable table;
  EnvServiceImpl service;
  std::unique_ptr<rpc::RpcServer> rpc;
};

ResetRequest Request(const std::string& id,
                     std::vector<std::string> replay = {}) {
  return {.request_id = id,
          .env = "fake",
          .options = {.split = "train", .task_id = "t"},
          .replay_actions = std::move(replay)};
}

// The callback calls, waited for.
absl::StatusOr<ResetResult> Reset(EnvCaller& caller,
                                  const ResetRequest& request) {
  absl::Notification done;
  absl::StatusOr<ResetResult> out;
  caller.Reset(request, [&](absl::StatusOr<ResetResult> result) {
    out = std::move(result);
    done.Notify();
  });
  done.WaitForNotification();
  return out;
}

absl::StatusOr<StepResult> Step(EnvCaller& caller, const std::string& id,
                                uint32_t turn, const std::string& text) {
  absl::Notification done;
  absl::StatusOr<StepResult> out;
  caller.Step(id, turn, text, [&](absl::StatusOr<StepResult> result) {
    out = std::move(result);
    done.Notify();
  });
  done.WaitForNotification();
  return out;
}

std::string Text(const absl::StatusOr<StepResult>& result) {
  return result.ok() ? result->observation.text : result.status().ToString();
}

constexpr EnvClientOptions kQuick{.timeout = absl::Seconds(20),
                                  .min_backoff = absl::Milliseconds(1),
                                  .max_backoff = absl::Milliseconds(20)};

TEST(EnvServiceTest, RemoteAndLocalCallersShowTheSame) {
  Server server;
  EnvClient remote({server.Channel()}, kQuick);
  LocalCaller local(Fakes());
  EXPECT_EQ(remote.Describe("fake")->splits[0].content_hash,
            local.Describe("fake")->splits[0].content_hash);
  for (EnvCaller* caller :
       {static_cast<EnvCaller*>(&remote), static_cast<EnvCaller*>(&local)}) {
    const auto reset = Reset(*caller, Request("r", {"a"}));
    ASSERT_TRUE(reset.ok()) << reset.status();
    EXPECT_EQ(reset->first.text, "t:");
    EXPECT_EQ(reset->first.fields.at("seen"), "nothing");
    ASSERT_EQ(reset->replayed.size(), 1u);
    EXPECT_EQ(reset->replayed[0].observation.text, "t:a");
    const auto step = Step(*caller, reset->episode_id, 1, "<win>");
    ASSERT_TRUE(step.ok()) << step.status();
    EXPECT_EQ(step->executed_action, "win");
    EXPECT_TRUE(step->action_valid);
    EXPECT_EQ(step->observation.done_reason, DoneReason::kWon);
    EXPECT_EQ(step->observation.reward, 1);
    caller->Close(reset->episode_id);
    EXPECT_TRUE(
        absl::IsNotFound(Step(*caller, reset->episode_id, 2, "<x>").status()));
  }
}

TEST(EnvServiceTest, EpisodesOfADeadServerGoOnAtAnother) {
  auto first = std::make_unique<Server>();
  auto second = std::make_unique<Server>();
  EnvClient client({first->Channel(), second->Channel()}, kQuick);
  std::vector<std::string> ids;
  for (int i = 0; i < 6; ++i) {
    const auto reset = Reset(client, Request(absl::StrCat("r", i), {"p"}));
    ASSERT_TRUE(reset.ok());
    ids.push_back(reset->episode_id);
    ASSERT_EQ(Text(Step(client, ids[i], 1, absl::StrCat("<", i, ">"))),
              absl::StrCat("t:p,", i));
  }
  EXPECT_EQ(first->table.size(), 3u);
  EXPECT_EQ(second->table.size(), 3u);
  first.reset();
  for (int i = 0; i < 6; ++i)
    EXPECT_EQ(Text(Step(client, ids[i], 2, "<b>")),
              absl::StrCat("t:p,", i, ",b"));
  EXPECT_EQ(second->table.size(), 6u);
}

TEST(EnvServiceTest, EpisodesOutliveARestartOfTheOnlyServer) {
  auto server = std::make_unique<Server>();
  const uint16_t port = server->rpc->port();
  EnvClient client({server->Channel()}, kQuick);
  const auto reset = Reset(client, Request("r"));
  ASSERT_TRUE(reset.ok());
  ASSERT_EQ(Text(Step(client, reset->episode_id, 0, "<a>")), "t:a");
  server.reset();
  server = std::make_unique<Server>(port);
  EXPECT_EQ(Text(Step(client, reset->episode_id, 1, "<b>")), "t:a,b");
}

TEST(EnvServiceTest, ALostReplyIsNotPlayedTwice) {
  Server server;
  EnvClient client({server.Channel()}, kQuick);
  const auto reset = Reset(client, Request("r"));
  ASSERT_EQ(Text(Step(client, reset->episode_id, 0, "<a>")), "t:a");
  EXPECT_EQ(Text(Step(client, reset->episode_id, 0, "<a>")), "t:a");
  // The server forgets the episode after the turn: the same turn again is
  // played on an episode built without it.
  server.clock.Advance(absl::Seconds(1000));
  EXPECT_EQ(Text(Step(client, reset->episode_id, 0, "<a>")), "t:a");
  EXPECT_EQ(Text(Step(client, reset->episode_id, 1, "<b>")), "t:a,b");
}

TEST(EnvServiceTest, AnExpiredEpisodeIsBuiltAgain) {
  Server server;
  EnvClient client({server.Channel()}, kQuick);
  const auto reset = Reset(client, Request("r"));
  ASSERT_EQ(Text(Step(client, reset->episode_id, 0, "<a>")), "t:a");
  server.clock.Advance(absl::Seconds(1000));
  EXPECT_EQ(Text(Step(client, reset->episode_id, 1, "<b>")), "t:a,b");
}

TEST(EnvServiceTest, WithoutAServerUnavailableReachesTheCaller) {
  auto server = std::make_unique<Server>();
  const auto channel = server->Channel();
  server.reset();
  EnvClient client({channel}, {.timeout = absl::Milliseconds(200),
                               .min_backoff = absl::Milliseconds(1),
                               .max_backoff = absl::Milliseconds(10)});
  EXPECT_TRUE(absl::IsUnavailable(Reset(client, Request("r")).status()));
  EXPECT_FALSE(client.Describe("fake").ok());
}

TEST(EnvServiceTest, AClientThatClosesAnswersItsCalls) {
  auto server = std::make_unique<Server>();
  const auto channel = server->Channel();
  server.reset();
  absl::Status status;
  {
    EnvClient client({channel}, {.timeout = absl::Seconds(1000)});
    client.Reset(Request("r"), [&](absl::StatusOr<ResetResult> result) {
      status = result.status();
    });
  }
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
}

TEST(EnvServiceTest, ServersWithOtherTasksAreRefused) {
  Server one(0, "hash-1"), two(0, "hash-2");
  EnvClient client({one.Channel(), two.Channel()}, kQuick);
  EXPECT_TRUE(absl::IsFailedPrecondition(client.Describe("fake").status()));
}

TEST(EnvServiceTest, UnknownNamesAreErrorsNotRetried) {
  Server server;
  EnvClient client({server.Channel()}, {.timeout = absl::Seconds(1000)});
  ResetRequest request = Request("r");
  request.options.task_id = "u";
  EXPECT_TRUE(absl::IsNotFound(Reset(client, request).status()));
  EXPECT_TRUE(absl::IsNotFound(client.Describe("mars").status()));
}

TEST(EnvServiceTest, ASessionAnswersEveryTag) {
  Server server;
  auto stub = v1::EnvService::NewStub(server.Channel());
  grpc::ClientContext context;
  auto stream = stub->Session(&context);
  v1::EnvRequest request;
  request.set_tag(7);
  *request.mutable_reset() = [] {
    v1::ResetRequest reset;
    reset.set_env("fake");
    reset.set_split("train");
    reset.set_task_id("t");
    return reset;
  }();
  ASSERT_TRUE(stream->Write(request));
  v1::EnvReply reply;
  ASSERT_TRUE(stream->Read(&reply));
  EXPECT_EQ(reply.tag(), 7u);
  EXPECT_EQ(reply.reset().lease_seconds(), 60u);
  const std::string id = reply.reset().episode_id();
  constexpr int kSteps = 5;
  for (int i = 0; i < kSteps; ++i) {
    request.set_tag(100 + i);
    request.mutable_step()->set_episode_id(i == 3 ? "nobody" : id);
    request.mutable_step()->set_turn_index(i < 3 ? i : i - 1);
    request.mutable_step()->set_action("a");
    ASSERT_TRUE(stream->Write(request));
  }
  stream->WritesDone();
  for (int i = 0; i < kSteps; ++i) {
    ASSERT_TRUE(stream->Read(&reply));
    EXPECT_EQ(reply.tag(), 100u + i);
    EXPECT_EQ(reply.code(), i == 3 ? 5 : 0) << reply.message();
  }
  EXPECT_FALSE(stream->Read(&reply));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST(EnvServiceTest, ADrainingServerEndsItsSessions) {
  Server server;
  auto stub = v1::EnvService::NewStub(server.Channel());
  grpc::ClientContext context;
  auto stream = stub->Session(&context);
  v1::EnvRequest request;
  request.mutable_keep_alive();
  v1::EnvReply reply;
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&reply));
  server.service.EndSessions();
  EXPECT_FALSE(stream->Read(&reply));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(EnvServiceTest, AStepWithoutInputIsRefused) {
  Server server;
  v1::StepReply reply;
  v1::StepRequest request;
  EXPECT_TRUE(absl::IsInvalidArgument(server.service.Step(request, reply)));
}

}  // namespace
}  // namespace atod::envs
