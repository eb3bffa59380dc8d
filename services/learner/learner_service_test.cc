#include "services/learner/learner_service.h"

#include <filesystem>

#include "common/base/file.h"
#include "common/rpc/channel.h"
#include "common/rpc/rpc_status.h"
#include "common/rpc/server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/control_service.h"

namespace atod::learner {
namespace {

using WorkStream =
    grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>;

// Real services in process, spoken to by real clients.
class LearnerServiceTest : public testing::Test {
 protected:
  LearnerServiceTest() {
    dir_ = testing::TempDir() + "learner_service";
    std::filesystem::remove_all(dir_);
    EXPECT_TRUE(MakeDirs(dir_).ok());
    ledger_ = Ledger::Open(dir_ + "/ledger.db").value();
    store_ = TrajectoryStore::Open(dir_ + "/spool").value();
    CoordinatorOptions options;
    options.run_id = "run";
    options.config_yaml = "name: run";
    options.model.set_tokenizer_hash("t");
    options.grace = absl::ZeroDuration();
    coordinator_ = std::make_unique<Coordinator>(options, &clock_);
    intake_ = std::make_unique<Intake>(coordinator_.get(), ledger_.get(),
                                       store_.get(), TrajectoryLimits{10, 100});
    service_ = std::make_unique<LearnerServiceImpl>(*coordinator_, *intake_);
    control_ = std::make_unique<ControlServiceImpl>("run", 1, state_,
                                                    *coordinator_, *ledger_);
    server_ = rpc::Listen({.address = "127.0.0.1:0",
                           .services = {service_.get(), control_.get()}})
                  .value();
    channel_ = rpc::Connect(server_->address()).value();
    stub_ = v1::LearnerService::NewStub(channel_);
    control_stub_ = v1::ControlService::NewStub(channel_);
  }
  ~LearnerServiceTest() override {
    service_->EndStreams();
    control_->EndStreams();
    server_->Shutdown(absl::Seconds(5));
  }

  std::unique_ptr<WorkStream> Join(grpc::ClientContext& context,
                                   const std::string& worker,
                                   const std::string& tokenizer = "t") {
    auto stream = stub_->Work(&context);
    v1::WorkerMessage message;
    message.mutable_hello()->set_worker(worker);
    message.mutable_hello()->set_slots(4);
    message.mutable_hello()->mutable_model()->set_tokenizer_hash(tokenizer);
    stream->Write(message);
    return stream;
  }

  static GroupOrder Order() {
    GroupOrder order;
    order.samples = 1;
    order.base.mutable_weight_min()->set_root_hash("w");
    order.base.mutable_weight_max()->set_root_hash("w");
    return order;
  }

  std::string dir_;
  RealClock clock_;
  RunState state_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<TrajectoryStore> store_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<Intake> intake_;
  std::unique_ptr<LearnerServiceImpl> service_;
  std::unique_ptr<ControlServiceImpl> control_;
  std::unique_ptr<rpc::RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::LearnerService::Stub> stub_;
  std::unique_ptr<v1::ControlService::Stub> control_stub_;
};

TEST_F(LearnerServiceTest, AWorkerIsWelcomedGrantedAndItsWorkCollected) {
  grpc::ClientContext context;
  auto stream = Join(context, "w");
  v1::CoordinatorMessage message;
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.welcome().run_id(), "run");
  EXPECT_EQ(message.welcome().config_yaml(), "name: run");

  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, {Order()}).ok());
  ASSERT_TRUE(stream->Read(&message));
  const v1::Lease lease = message.grant().lease();

  v1::SubmitRequest request;
  v1::Trajectory& t = *request.mutable_trajectory();
  t.mutable_id()->set_run_id("run");
  t.mutable_id()->set_step(lease.step());
  t.set_incarnation(1);
  t.set_purpose(v1::TRAIN);
  for (const auto want :
       {v1::SubmitReply::ACCEPTED, v1::SubmitReply::DUPLICATE}) {
    grpc::ClientContext call;
    v1::SubmitReply reply;
    ASSERT_TRUE(stub_->Submit(&call, request, &reply).ok());
    EXPECT_EQ(reply.verdict(), want);
  }
  EXPECT_EQ(coordinator_->Wait(v1::TRAIN, 1)->trajectories.size(), 1u);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(LearnerServiceTest, ABrokenStreamHandsItsWorkToAnother) {
  grpc::ClientContext dead_context, alive_context;
  auto dead = Join(dead_context, "dead");
  v1::CoordinatorMessage message;
  ASSERT_TRUE(dead->Read(&message));
  ASSERT_TRUE(coordinator_->Open(v1::TRAIN, 1, {Order()}).ok());
  ASSERT_TRUE(dead->Read(&message));
  EXPECT_EQ(message.grant().lease().attempt(), 0u);
  dead_context.TryCancel();
  auto alive = Join(alive_context, "alive");
  ASSERT_TRUE(alive->Read(&message));
  ASSERT_TRUE(alive->Read(&message));
  EXPECT_EQ(message.grant().lease().attempt(), 1u);
  EXPECT_FALSE(dead->Finish().ok());
}

TEST_F(LearnerServiceTest, AWorkerThatComesBackReplacesItsOldStream) {
  grpc::ClientContext first_context, second_context;
  auto first = Join(first_context, "w");
  v1::CoordinatorMessage message;
  ASSERT_TRUE(first->Read(&message));
  auto second = Join(second_context, "w");
  ASSERT_TRUE(second->Read(&message));
  EXPECT_FALSE(first->Read(&message));
  EXPECT_EQ(first->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(LearnerServiceTest, AWrongTokenizerEndsTheStreamWithTheReason) {
  grpc::ClientContext context;
  auto stream = Join(context, "w", "other");
  v1::CoordinatorMessage message;
  EXPECT_FALSE(stream->Read(&message));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), testing::HasSubstr("tokenizer_hash"));
}

TEST_F(LearnerServiceTest, DrainReachesTheWorker) {
  grpc::ClientContext context;
  auto stream = Join(context, "w");
  v1::CoordinatorMessage message;
  ASSERT_TRUE(stream->Read(&message));
  coordinator_->Drain();
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_TRUE(message.has_drain());
}

TEST_F(LearnerServiceTest, StatusAndStepsAreToldToPeople) {
  ASSERT_TRUE(ledger_->Issue({{v1::TRAIN, 1, 0, 0}}).ok());
  state_.SetStep(3, 10);
  state_.SetPhase("rollout");
  grpc::ClientContext context;
  v1::StatusReply status;
  ASSERT_TRUE(control_stub_->Status(&context, {}, &status).ok());
  EXPECT_EQ(status.run_id(), "run");
  EXPECT_EQ(status.step(), 3u);
  EXPECT_EQ(status.phase(), "rollout");
  EXPECT_EQ(status.issued(), 1u);
  EXPECT_EQ(status.in_flight(), 1u);

  v1::StepRecord record;
  for (uint32_t step = 0; step < 3; ++step) {
    record.set_step(step);
    state_.AddRecord(record);
  }
  grpc::ClientContext watch;
  v1::WatchStepsRequest request;
  request.set_from_step(1);
  auto steps = control_stub_->WatchSteps(&watch, request);
  record.set_step(3);
  state_.AddRecord(record);
  for (uint32_t want = 1; want <= 3; ++want) {
    ASSERT_TRUE(steps->Read(&record));
    EXPECT_EQ(record.step(), want);
  }
  watch.TryCancel();
  steps->Finish();
}

TEST_F(LearnerServiceTest, PauseCheckpointAndStopReachTheRun) {
  const auto call = [](auto method, auto request, auto reply) {
    grpc::ClientContext context;
    EXPECT_TRUE(method(&context, request, &reply).ok());
  };
  call([&](auto* c, auto& q, auto* r) { return control_stub_->Pause(c, q, r); },
       v1::PauseRequest(), v1::PauseReply());
  call([&](auto* c, auto& q,
           auto* r) { return control_stub_->Checkpoint(c, q, r); },
       v1::CheckpointRequest(), v1::CheckpointReply());
  EXPECT_TRUE(state_.TakeCheckpointRequest());
  EXPECT_FALSE(state_.TakeCheckpointRequest());
  std::thread run([&] { state_.WaitWhilePaused(); });
  call([&](auto* c, auto& q, auto* r) { return control_stub_->Stop(c, q, r); },
       v1::StopRequest(), v1::StopReply());
  run.join();
  EXPECT_TRUE(state_.stop_requested());
}

}  // namespace
}  // namespace atod::learner
