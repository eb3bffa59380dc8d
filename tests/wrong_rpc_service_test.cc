// What strangers may send to the services: each call ends with a status of its
// own, and the server answers health checks afterwards.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "atod/v1/env.pb.h"
#include "atod/v1/learner.pb.h"
#include "atod/v1/teacher.pb.h"
#include "common/base/file.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "services/envs/env_service.h"
#include "services/envs/fake_environment.h"
#include "services/learner/control_service.h"
#include "services/learner/learner_service.h"
#include "services/teacher/batcher.h"
#include "services/teacher/fake_scorer.h"
#include "services/teacher/teacher_service.h"

namespace atod {
namespace {

using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;

grpc::ByteBuffer Bytes(const std::string& bytes, int times = 1) {
  const std::vector<grpc::Slice> slices(times, grpc::Slice(bytes));
  return {slices.data(), slices.size()};
}

// Sends `bytes` to "/SERVICE/METHOD" as its only message.
grpc::Status Send(grpc::Channel& channel, const std::string& method,
                  const grpc::ByteBuffer& bytes) {
  grpc::GenericStub stub(
      std::shared_ptr<grpc::Channel>(&channel, [](grpc::Channel*) {}));
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(60)));
  grpc::ByteBuffer reply;
  grpc::Status status;
  absl::Notification done;
  stub.UnaryCall(&context, method, {}, &bytes, &reply, [&](grpc::Status s) {
    status = std::move(s);
    done.Notify();
  });
  done.WaitForNotification();
  return status;
}

// Bytes that are no HTTP/2 to the port; returns when the server hung up.
void SendRaw(uint16_t port, const std::string& bytes) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address),
            0);
  send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  shutdown(fd, SHUT_WR);
  char buffer[256];
  while (read(fd, buffer, sizeof buffer) > 0) {
  }
  close(fd);
}

// The server survives what fits no contract.
void Abuse(const rpc::RpcServer& server,
           const std::vector<const ServiceDescriptor*>& services) {
  // Our own clients would refuse to send too much.
  grpc::ChannelArguments arguments;
  arguments.SetMaxSendMessageSize(-1);
  const auto channel = grpc::CreateCustomChannel(
      server.address(), grpc::InsecureChannelCredentials(), arguments);
  const auto healthy = [&] {
    return Send(*channel, "/grpc.health.v1.Health/Check", Bytes("")).ok();
  };
  ASSERT_TRUE(healthy());
  for (const ServiceDescriptor* service : services) {
    const std::string prefix = absl::StrCat("/", service->full_name(), "/");
    EXPECT_EQ(Send(*channel, prefix + "Nothing", Bytes("")).error_code(),
              grpc::StatusCode::UNIMPLEMENTED);
    for (int i = 0; i < service->method_count(); ++i) {
      const MethodDescriptor& method = *service->method(i);
      SCOPED_TRACE(method.full_name());
      const grpc::Status garbage =
          Send(*channel, prefix + method.name(), Bytes("\xff\xfe garbage"));
      // On a stream gRPC shows a broken message as the end of the messages.
      EXPECT_TRUE(!garbage.ok() || method.client_streaming());
      EXPECT_NE(garbage.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
      EXPECT_TRUE(healthy());
    }
    const grpc::Status large = Send(
        *channel, prefix + service->method(0)->name(),
        Bytes(std::string(1 << 20, 'x'), (rpc::kMaxMessageBytes >> 20) + 1));
    EXPECT_EQ(large.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_TRUE(healthy());
  }
  SendRaw(server.port(), "GET / HTTP/1.1\r\n\r\n");
  SendRaw(server.port(), std::string(10000, '\0'));
  EXPECT_TRUE(healthy());
}

TEST(WrongRpc, TheEnvironmentServerStays) {
  RealClock clock;
  metrics::Registry registry;
  envs::EnvMetrics metrics(registry);
  envs::EpisodeTable table(
      {{"fake", std::make_shared<envs::FakeEnvironment>("hash")}},
      absl::Seconds(60), &clock, &metrics);
  envs::EnvServiceImpl service(table, &metrics);
  const auto server =
      rpc::Listen({.address = "127.0.0.1:0", .services = {&service}}).value();
  Abuse(*server, {v1::EnvReply::descriptor()->file()->service(0)});
  const auto channel = rpc::Connect(server->address()).value();
  v1::StepRequest step;
  step.set_episode_id("nobody");
  step.set_model_text("look");
  EXPECT_EQ(Send(*channel, "/atod.v1.EnvService/Step",
                 Bytes(step.SerializeAsString()))
                .error_code(),
            grpc::StatusCode::NOT_FOUND);
  service.EndSessions();
}

TEST(WrongRpc, TheTeacherStays) {
  metrics::Registry registry;
  teacher::FakeScorerState state;
  teacher::Batcher batcher(std::make_unique<teacher::FakeScorer>(state), {},
                           registry);
  v1::ModelInfo info;
  info.set_name("teacher");
  info.set_vocab_size(1000);
  info.set_max_context(64);
  teacher::TeacherServiceImpl service({{info, &batcher}}, {}, registry);
  const auto server =
      rpc::Listen({.address = "127.0.0.1:0", .services = {&service}}).value();
  Abuse(*server, {v1::ScoreReply::descriptor()->file()->service(0)});
  const auto channel = rpc::Connect(server->address()).value();
  v1::ScoreRequest cold;  // no temperature
  cold.add_items()->add_tokens(1);
  EXPECT_EQ(Send(*channel, "/atod.v1.TeacherService/Score",
                 Bytes(cold.SerializeAsString()))
                .error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(WrongRpc, TheLearnerStays) {
  const std::string dir = testing::TempDir() + "wrong_rpc";
  std::filesystem::remove_all(dir);
  ASSERT_TRUE(MakeDirs(dir).ok());
  RealClock clock;
  learner::RunState state;
  const auto ledger = learner::Ledger::Open(dir + "/ledger.db").value();
  const auto store = learner::TrajectoryStore::Open(dir + "/spool").value();
  learner::CoordinatorOptions options;
  options.run_id = "run";
  options.model.set_tokenizer_hash("t");
  learner::Coordinator coordinator(options, &clock);
  learner::Intake intake(&coordinator, ledger.get(), store.get(),
                         learner::TrajectoryLimits{10, 100});
  learner::LearnerServiceImpl service(coordinator, intake);
  learner::ControlServiceImpl control("run", 1, state, coordinator, *ledger);
  const auto server =
      rpc::Listen({.address = "127.0.0.1:0", .services = {&service, &control}})
          .value();
  const auto* file = v1::Hello::descriptor()->file();
  Abuse(*server, {file->FindServiceByName("LearnerService"),
                  file->FindServiceByName("ControlService")});

  const auto channel = rpc::Connect(server->address()).value();
  const auto work = [&](const v1::WorkerMessage& first) {
    return Send(*channel, "/atod.v1.LearnerService/Work",
                Bytes(first.SerializeAsString()));
  };
  v1::WorkerMessage first;
  EXPECT_FALSE(work(first).ok());  // nothing in it
  first.mutable_beat()->set_free_slots(1);
  EXPECT_FALSE(work(first).ok());  // no Hello
  first.mutable_hello()->set_worker("w");
  first.mutable_hello()->set_slots(1);
  first.mutable_hello()->mutable_model()->set_tokenizer_hash("other");
  EXPECT_FALSE(work(first).ok());
  v1::SubmitRequest nonsense;
  nonsense.mutable_trajectory()->mutable_id()->set_run_id("another run");
  auto stub = v1::LearnerService::NewStub(channel);
  grpc::ClientContext context;
  v1::SubmitReply reply;
  const grpc::Status status = stub->Submit(&context, nonsense, &reply);
  EXPECT_TRUE(!status.ok() || reply.verdict() == v1::SubmitReply::REJECTED ||
              reply.verdict() == v1::SubmitReply::SUPERSEDED);
  service.EndStreams();
  control.EndStreams();
}

}  // namespace
}  // namespace atod
