#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <string>

#include "absl/synchronization/notification.h"
#include "atod/v1/learner.grpc.pb.h"
#include "common/base/problem.h"
#include "common/rpc/address.h"
#include "common/rpc/channel.h"
#include "common/rpc/health_client.h"
#include "common/rpc/rpc_status.h"
#include "common/rpc/server.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "gtest/gtest.h"

namespace atod::rpc {
namespace {

using testing::HasSubstr;

TEST(RpcStatus, CarriesTheProblemBothWays) {
  const absl::Status sent =
      BadInput({"run.yaml", "optimizer.lr", 7, "\"fast\"", "a number"});
  const absl::Status got = FromGrpc(ToGrpc(sent));
  EXPECT_EQ(got, sent);
  const Problem problem = ProblemOf(got);
  EXPECT_EQ(problem.file, "run.yaml");
  EXPECT_EQ(problem.field, "optimizer.lr");
  EXPECT_EQ(problem.line, 7);
  EXPECT_EQ(problem.found, "\"fast\"");
  EXPECT_EQ(problem.expected, "a number");
}

TEST(RpcStatus, KeepsEveryCode) {
  EXPECT_TRUE(FromGrpc(ToGrpc(absl::OkStatus())).ok());
  for (int code = 1; code <= 16; ++code) {
    const absl::Status sent(static_cast<absl::StatusCode>(code), "text");
    EXPECT_EQ(FromGrpc(ToGrpc(sent)), sent);
  }
}

TEST(RpcStatus, IgnoresBrokenDetails) {
  const absl::Status got = FromGrpc(
      grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "text", "\xff\x01junk"));
  EXPECT_EQ(got, absl::InvalidArgumentError("text"));
}

TEST(Address, IsParsedAndBadOnesNameTheField) {
  EXPECT_EQ(ParseAddress("127.0.0.1:7701", "x")->ToString(), "127.0.0.1:7701");
  EXPECT_EQ(ParseAddress("[::1]:1", "x")->host, "::1");
  EXPECT_EQ(ParseAddress("[::1]:1", "x")->ToString(), "[::1]:1");
  EXPECT_EQ(ParseAddresses("a:1, b:2", "x")->at(1).host, "b");
  for (const char* bad :
       {"", "host", "host:", ":1", "host:65536", "host:-1", "host:1x", "::1:5",
        "[x]:1", "a b:1", "http://a:1", "host:99999999999"}) {
    const auto parsed = ParseAddress(bad, "rpc.learner");
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_EQ(ProblemOf(parsed.status()).field, "rpc.learner");
  }
  EXPECT_FALSE(ParseAddresses("a:1,", "rpc.envs").ok());
  EXPECT_EQ(*ListenAddress("0.0.0.0", "learner:7701", "x"), "0.0.0.0:7701");
  EXPECT_EQ(*ListenAddress("::", "learner:7701", "x"), "[::]:7701");
  EXPECT_FALSE(ListenAddress("0.0.0.0:1", "learner:7701", "x").ok());
  EXPECT_EQ(*ListenAddressAt("0.0.0.0", "a:1,b:2", 1, "x"), "0.0.0.0:2");
  EXPECT_EQ(ListenAddressAt("0.0.0.0", "a:1,b:2", 2, "x").status().message(),
            "--index is past the end of x");
}

TEST(Address, APeerOnPort0OrInPlaintextBeyondLoopbackIsRefused) {
  EXPECT_EQ(CheckPeer({"127.0.0.1", 0}, {}, "rpc.envs").message(),
            "rpc.envs: found 127.0.0.1:0, expected a port from 1 to 65535");
  EXPECT_EQ(CheckPeer({"::1", 0}, Security::Insecure(), "rpc.envs").message(),
            "rpc.envs: found [::1]:0, expected a port from 1 to 65535");
  EXPECT_FALSE(CheckPeer({"learner.local", 7701}, {}, "rpc.learner").ok());
  EXPECT_TRUE(
      CheckPeer({"learner.local", 7701}, Security::Insecure(), "rpc.learner")
          .ok());
}

TEST(Address, KnowsLoopback) {
  for (const char* host : {"localhost", "127.0.0.1", "127.9.9.9", "::1"})
    EXPECT_TRUE(IsLoopback(host)) << host;
  for (const char* host :
       {"0.0.0.0", "::", "10.0.0.1", "example.org", "127.0.0.1.example.org"})
    EXPECT_FALSE(IsLoopback(host)) << host;
}

// Answers Status with the run's name, or with an error when told to.
class FakeControl : public v1::ControlService::CallbackService {
 public:
  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context,
                                   const v1::StatusRequest*,
                                   v1::StatusReply* reply) override {
    reply->set_run_id("run");
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc(error));
    return reactor;
  }
  absl::Status error;
};

absl::StatusOr<std::string> CallStatus(const std::string& address) {
  auto channel = Connect(address);
  if (!channel.ok()) return channel.status();
  const auto stub = v1::ControlService::NewStub(*channel);
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(60));
  v1::StatusReply reply;
  const grpc::Status status = stub->Status(&context, {}, &reply);
  if (!status.ok()) return FromGrpc(status);
  return reply.run_id();
}

// Any method with one request and one reply, as bytes.
absl::StatusOr<std::string> CallRaw(const std::string& address,
                                    const std::string& method,
                                    const std::string& request) {
  grpc::GenericStub stub(*Connect(address));
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(60));
  const grpc::Slice slice(request);
  const grpc::ByteBuffer sent(&slice, 1);
  grpc::ByteBuffer got;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, method, grpc::StubOptions(), &sent, &got,
                 [&done](grpc::Status s) { done.set_value(std::move(s)); });
  const grpc::Status status = done.get_future().get();
  if (!status.ok()) return FromGrpc(status);
  grpc::Slice flat;
  if (!got.TrySingleSlice(&flat).ok() && !got.DumpToSingleSlice(&flat).ok())
    return absl::InternalError("no bytes");
  return std::string(flat.begin(), flat.end());
}

TEST(RpcServer, AnswersCallsAndCarriesProblems) {
  FakeControl control;
  const auto server = Listen({"127.0.0.1:0", {&control}});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_NE((*server)->port(), 0);
  EXPECT_EQ(*CallStatus((*server)->address()), "run");
  control.error = BadInput({"f", "g", 1, "a", "b"});
  EXPECT_EQ(ProblemOf(CallStatus((*server)->address()).status()).field, "g");
}

TEST(RpcServer, HealthFollowsSetServing) {
  FakeControl control;
  const auto server = Listen(
      {.address = "127.0.0.1:0", .services = {&control}, .serving = false});
  ASSERT_TRUE(server.ok());
  const auto health = [&] {
    return *CallRaw((*server)->address(), "/grpc.health.v1.Health/Check", "");
  };
  EXPECT_EQ(health(), "\x08\x02");  // NOT_SERVING
  (*server)->SetServing(true);
  EXPECT_EQ(health(), "\x08\x01");  // SERVING
}

TEST(Health, AServerThatServesPassesAndNoOtherDoes) {
  FakeControl control;
  const auto server = Listen({"127.0.0.1:0", {&control}});
  ASSERT_TRUE(server.ok());
  const std::string address = (*server)->address();
  EXPECT_TRUE(CheckHealth(address, absl::Seconds(20)).ok());
  (*server)->SetServing(false);
  EXPECT_TRUE(absl::IsUnavailable(CheckHealth(address, absl::Seconds(20))));
  // As a stopped process: the system takes the connection, nobody answers.
  const int silent = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(any);
  ASSERT_EQ(bind(silent, reinterpret_cast<sockaddr*>(&any), size), 0);
  ASSERT_EQ(listen(silent, 4), 0);
  getsockname(silent, reinterpret_cast<sockaddr*>(&any), &size);
  const std::string stopped = absl::StrCat("127.0.0.1:", ntohs(any.sin_port));
  EXPECT_FALSE(CheckHealth(stopped, absl::Milliseconds(200)).ok());
  EXPECT_FALSE(CheckMetrics(stopped, absl::Milliseconds(200)).ok());
  close(silent);
  EXPECT_FALSE(CheckMetrics(stopped, absl::Milliseconds(200)).ok());
}

TEST(RpcServer, ReflectionListsItsServices) {
  FakeControl control;
  const auto server = Listen({"127.0.0.1:0", {&control}});
  ASSERT_TRUE(server.ok());
  // ServerReflectionRequest{list_services: ""}
  const auto reply =
      CallRaw((*server)->address(),
              "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
              std::string("\x3a\x00", 2));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_THAT(*reply, HasSubstr("atod.v1.ControlService"));
}

TEST(RpcServer, RefusesATakenPortAndPlaintextBeyondLoopback) {
  FakeControl a, b;
  const auto first = Listen({"127.0.0.1:0", {&a}});
  ASSERT_TRUE(first.ok());
  const auto second = Listen({(*first)->address(), {&b}});
  EXPECT_TRUE(absl::IsAlreadyExists(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr((*first)->address()));
  const auto open = Listen({"0.0.0.0:0", {&b}});
  EXPECT_EQ(ProblemOf(open.status()).field, "rpc.bind");
  ServerOptions insecure{"0.0.0.0:0", {&b}};
  insecure.security = Security::Insecure();
  EXPECT_TRUE(Listen(insecure).ok());
  EXPECT_EQ(ProblemOf(Connect("10.1.1.1:1", {}, "rpc.teacher").status()).field,
            "rpc.teacher");
  EXPECT_TRUE(Connect("10.1.1.1:1", Security::Insecure()).ok());
}

// Holds every call until told to go on.
class SlowControl : public v1::ControlService::CallbackService {
 public:
  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context,
                                   const v1::StatusRequest*,
                                   v1::StatusReply* reply) override {
    reply->set_run_id("run");
    reactor = context->DefaultReactor();
    arrived.Notify();
    return reactor;
  }
  grpc::ServerUnaryReactor* reactor = nullptr;
  absl::Notification arrived;
};

TEST(RpcServer, ShutdownWaitsForCallsUnderWay) {
  SlowControl control;
  const auto server = Listen({"127.0.0.1:0", {&control}});
  ASSERT_TRUE(server.ok());
  const std::string address = (*server)->address();
  auto call = std::async(std::launch::async,
                         [&address] { return CallStatus(address); });
  control.arrived.WaitForNotification();
  auto shutdown = std::async(std::launch::async, [&server] {
    (*server)->Shutdown(absl::Seconds(60));
  });
  control.reactor->Finish(grpc::Status::OK);
  EXPECT_EQ(*call.get(), "run");
  shutdown.get();
  EXPECT_TRUE(absl::IsUnavailable(CallStatus(address).status()));
}

}  // namespace
}  // namespace atod::rpc
