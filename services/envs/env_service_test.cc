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

using ::testing::HasSubstr;

EnvironmentMap Fakes(const std::string& hash = "hash") {
  return {{"fake", std::make_shared<FakeEnvironment>(hash)}};
}

// One life of a server.
struct Server {
  explicit Server(EnvironmentMap envs = Fakes())
      : table(std::move(envs), absl::Seconds(60), &clock, &metrics),
        service(table, &metrics) {
    auto started =
        rpc::Listen({.address = "127.0.0.1:0", .services = {&service}});
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
  EnvServer Address() const { return {rpc->address(), Channel()}; }

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

TEST(EnvServiceTest, RemoteAndLocalCallersShowTheSame) {
  Server server;
  EnvClient remote({server.Address()});
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

TEST(EnvServiceTest, WhoResetsAgainAfterAServerDiedReachesAnother) {
  auto first = std::make_unique<Server>();
  auto second = std::make_unique<Server>();
  EnvClient client({first->Address(), second->Address()});
  std::vector<std::string> ids;
  for (int i = 0; i < 4; ++i) {
    const auto reset = Reset(client, Request(absl::StrCat("r", i), {"p"}));
    ASSERT_TRUE(reset.ok()) << reset.status();
    ids.push_back(reset->episode_id);
  }
  EXPECT_EQ(first->table.size(), 2u);
  EXPECT_EQ(second->table.size(), 2u);
  const std::string address = first->rpc->address();
  first.reset();
  EXPECT_EQ(Text(Step(client, ids[1], 1, "<b>")), "t:p,b");
  const absl::Status gone = Step(client, ids[0], 1, "<b>").status();
  EXPECT_TRUE(absl::IsUnavailable(gone)) << gone;
  EXPECT_THAT(gone.message(),
              HasSubstr(absl::StrCat("environment server ", address, ": ")));
  // Each second one meets the dead server.
  int built = 0;
  for (int i = 0; i < 4; ++i) {
    const auto reset = Reset(client, Request(absl::StrCat("again", i), {"p"}));
    built += reset.ok();
    if (!reset.ok()) {
      EXPECT_TRUE(absl::IsUnavailable(reset.status()));
      continue;
    }
    EXPECT_EQ(Text(Step(client, reset->episode_id, 1, "<b>")), "t:p,b");
  }
  EXPECT_EQ(built, 2);
  EXPECT_TRUE(client.Describe("fake").ok());
}

TEST(EnvServiceTest, ALostReplyIsNotPlayedTwice) {
  Server server;
  EnvClient client({server.Address()});
  const auto reset = Reset(client, Request("r"));
  ASSERT_EQ(Text(Step(client, reset->episode_id, 0, "<a>")), "t:a");
  EXPECT_EQ(Text(Step(client, reset->episode_id, 0, "<a>")), "t:a");
  EXPECT_EQ(Reset(client, Request("r"))->episode_id, reset->episode_id);
}

TEST(EnvServiceTest, AnExpiredEpisodeIsNotFound) {
  Server server;
  EnvClient client({server.Address()});
  const auto reset = Reset(client, Request("r"));
  ASSERT_EQ(Text(Step(client, reset->episode_id, 0, "<a>")), "t:a");
  server.clock.Advance(absl::Seconds(1000));
  EXPECT_TRUE(
      absl::IsNotFound(Step(client, reset->episode_id, 1, "<b>").status()));
}

TEST(EnvServiceTest, WithoutAServerUnavailableReachesTheCaller) {
  auto server = std::make_unique<Server>();
  EnvClient client({server->Address()});
  server.reset();
  EXPECT_TRUE(absl::IsUnavailable(Reset(client, Request("r")).status()));
  EXPECT_TRUE(absl::IsUnavailable(client.Describe("fake").status()));
}

// Does not start an episode before it is told to.
class SlowEnvironment : public FakeEnvironment {
 public:
  absl::StatusOr<std::unique_ptr<Episode>> Start(
      const EpisodeOptions& options) const override {
    asked.Notify();
    go.WaitForNotification();
    return FakeEnvironment::Start(options);
  }
  mutable absl::Notification asked, go;
};

TEST(EnvServiceTest, AClientThatClosesAnswersItsCalls) {
  const auto slow = std::make_shared<SlowEnvironment>();
  Server server(EnvironmentMap{{"fake", slow}});
  absl::Status status;
  {
    EnvClient client({server.Address()}, absl::Seconds(1000));
    client.Reset(Request("r"), [&](absl::StatusOr<ResetResult> result) {
      status = result.status();
    });
    slow->asked.WaitForNotification();
  }
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  slow->go.Notify();
}

TEST(EnvServiceTest, ServersWithOtherTasksAreRefused) {
  Server one(Fakes("hash-1")), two(Fakes("hash-2"));
  EnvClient client({one.Address(), two.Address()});
  const absl::Status status = client.Describe("fake").status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_EQ(status.message(),
            absl::StrCat("environment server ", two.rpc->address(),
                         ": content_hash of fake/train: found hash-2, expected "
                         "hash-1 as at environment server ",
                         one.rpc->address()));
}

TEST(EnvServiceTest, AServerWithOtherGamesThanTheCallersRefusesAndIsNamed) {
  Server server(Fakes("hash-2"));
  EnvClient client({server.Address()});
  const auto refused = [&](auto change) {
    ResetRequest request = Request("r");
    change(request);
    const absl::Status status = Reset(client, request).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    return std::string(status.message());
  };
  EXPECT_EQ(refused([](auto& r) { r.content_hash = "hash-1"; }),
            absl::StrCat("environment server ", server.rpc->address(),
                         ": content_hash of fake/train: found hash-2, "
                         "expected hash-1 (for t)"));
  EXPECT_THAT(refused([](auto& r) { r.options.split = "test"; }),
              HasSubstr("fake/test: found no such split"));
  EXPECT_THAT(refused([](auto& r) { r.env = "mars"; }),
              HasSubstr("no environment 'mars'"));
  ResetRequest same = Request("r");
  same.content_hash = "hash-2";
  EXPECT_TRUE(Reset(client, same).ok());
}

TEST(EnvServiceTest, APortOfAnotherServiceIsNamed) {
  const auto other =
      rpc::Listen({.address = "127.0.0.1:0", .services = {}}).value();
  EnvClient client({{other->address(), *rpc::Connect(other->address())}});
  EXPECT_EQ(client.Describe("fake").status(),
            absl::FailedPreconditionError(
                absl::StrCat("environment server ", other->address(),
                             ": found another service, expected atod-envs")));
}

TEST(EnvServiceTest, UnknownNamesAreNotFound) {
  Server server;
  EnvClient client({server.Address()});
  ResetRequest request = Request("r");
  request.options.task_id = "u";
  EXPECT_TRUE(absl::IsNotFound(Reset(client, request).status()));
  EXPECT_TRUE(absl::IsNotFound(client.Describe("mars").status()));
  EXPECT_TRUE(absl::IsNotFound(Step(client, "nobody", 0, "<a>").status()));
  EXPECT_TRUE(absl::IsNotFound(Step(client, "7/nobody", 0, "<a>").status()));
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
