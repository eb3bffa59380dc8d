// Real rollout workers and a real learner's services over real connections;
// engine, environment and teacher are fakes.
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/file.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/weights/weights_client.h"
#include "common/weights/weights_service.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/coordinator.h"
#include "services/learner/intake.h"
#include "services/learner/learner_service.h"
#include "services/learner/ledger.h"
#include "services/learner/trajectory_store.h"
#include "services/rollout/fakes.h"
#include "services/rollout/worker.h"
#include "services/rollout/worker_client.h"

namespace atod {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

std::string Wanderer(const engine::EngineRequest& request) {
  return NoiseUniform(request.noise) < 0.4 ? " wait" : " go";
}

std::shared_ptr<const weights::WeightSnapshot> Snapshot(uint64_t seed) {
  auto snapshot = std::make_shared<weights::WeightSnapshot>();
  Rng rng(seed);
  for (int i = 0; i < 64; ++i) {
    snapshot->data.push_back(static_cast<char>(rng.Next()));
  }
  snapshot->tensors = {{.name = "w",
                        .dtype = "F32",
                        .shape = {16},
                        .bytes = 64,
                        .offset = 0,
                        .xxh3 = weights::TensorChecksum(snapshot->data)}};
  snapshot->root_hash = weights::ComputeRootHash(snapshot->tensors);
  return snapshot;
}

// One life of a learner, up to the point where training would begin.
class Learner {
 public:
  Learner(const std::string& dir, uint32_t incarnation, uint16_t port = 0) {
    std::filesystem::remove_all(dir);
    EXPECT_TRUE(MakeDirs(dir).ok());
    ledger_ = learner::Ledger::Open(dir + "/ledger.db").value();
    store_ = learner::TrajectoryStore::Open(dir + "/spool").value();
    learner::CoordinatorOptions options;
    options.run_id = "run";
    options.incarnation = incarnation;
    options.config_yaml = "name: run";
    options.model.set_tokenizer_hash("t");
    options.beat_seconds = 0.05;
    options.grace = absl::Milliseconds(50);
    options.backoff = absl::Milliseconds(5);
    coordinator_ = std::make_unique<learner::Coordinator>(options, &clock_);
    intake_ = std::make_unique<learner::Intake>(
        coordinator_.get(), ledger_.get(), store_.get(),
        learner::TrajectoryLimits{257, 200});
    service_ =
        std::make_unique<learner::LearnerServiceImpl>(*coordinator_, *intake_);
    weights_service_ = std::make_unique<weights::WeightsServiceImpl>(versions_);
    fetch_ = std::make_unique<weights::WeightsFetchService>(versions_);
    auto server =
        rpc::Listen({.address = absl::StrCat("127.0.0.1:", port),
                     .services = {service_.get(), weights_service_.get()},
                     .generic = fetch_.get()});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  ~Learner() {
    service_->EndStreams();
    server_->Shutdown(absl::ZeroDuration());
    server_.reset();
  }

  void Publish(uint32_t incarnation, uint64_t number, uint64_t seed) {
    const auto snapshot = Snapshot(seed);
    version_.set_incarnation(incarnation);
    version_.set_number(number);
    version_.set_root_hash(snapshot->root_hash);
    versions_.Publish({incarnation, number, "", snapshot});
    coordinator_->Announce(version_);
  }

  void Open(uint32_t step, uint32_t groups = 4, uint32_t samples = 6,
            const std::string& teacher = "big") {
    std::vector<learner::GroupOrder> orders;
    for (uint32_t g = 0; g < groups; ++g) {
      learner::GroupOrder& order = orders.emplace_back();
      order.samples = samples;
      v1::Lease& lease = order.base;
      lease.set_env("corridor");
      lease.set_split("train");
      lease.set_task_id(absl::StrCat("len-", 1 + g));
      lease.set_content_hash("hash-of-train");
      lease.set_run_seed(step);
      *lease.mutable_weight_min() = version_;
      *lease.mutable_weight_max() = version_;
      lease.mutable_sampling()->set_temperature(1);
      lease.mutable_sampling()->set_top_p(1);
      lease.mutable_sampling()->set_max_tokens(20);
      lease.set_max_turns(8);
      lease.set_layout("windowed");
      if (!teacher.empty()) lease.add_teachers(teacher);
    }
    ASSERT_TRUE(coordinator_->Open(v1::TRAIN, step, std::move(orders)).ok());
  }
  std::vector<v1::Trajectory> Collect(uint32_t step) {
    auto result = coordinator_->Wait(v1::TRAIN, step);
    EXPECT_TRUE(result.ok()) << result.status();
    EXPECT_THAT(result->dropped, SizeIs(0));
    return std::move(result->trajectories);
  }

  learner::Coordinator& coordinator() { return *coordinator_; }
  const v1::WeightVersion& version() const { return version_; }
  uint16_t port() const { return server_->port(); }

 private:
  RealClock clock_;
  v1::WeightVersion version_;
  weights::VersionStore versions_;
  std::unique_ptr<learner::Ledger> ledger_;
  std::unique_ptr<learner::TrajectoryStore> store_;
  std::unique_ptr<learner::Coordinator> coordinator_;
  std::unique_ptr<learner::Intake> intake_;
  std::unique_ptr<learner::LearnerServiceImpl> service_;
  std::unique_ptr<weights::WeightsServiceImpl> weights_service_;
  std::unique_ptr<weights::WeightsFetchService> fetch_;
  std::unique_ptr<rpc::RpcServer> server_;
};

// A whole worker on a thread.
class WorkerProcess {
 public:
  WorkerProcess(const std::string& name, uint16_t port,
                const std::string& tokenizer = "t",
                absl::Duration env_patience = absl::Seconds(120))
      : worker_(engine_, envs, *tokenizer_, &teacher, clock_, registry_,
                {.name = name,
                 .loop = {.slots = 8,
                          .max_context = 200,
                          .nonce = name,
                          .retry_min = absl::Milliseconds(1),
                          .retry_max = absl::Milliseconds(5)},
                 .install =
                     [this](const weights::WeightSnapshot& snapshot) {
                       EXPECT_FALSE(engine_.has_work());
                       installs.Push(std::string(snapshot.root_hash));
                       return absl::OkStatus();
                     },
                 .env_patience = env_patience}) {
    v1::Hello hello;
    hello.set_worker(name);
    hello.set_slots(8);
    hello.mutable_model()->set_tokenizer_hash(tokenizer);
    const auto channel = *rpc::Connect(absl::StrCat("127.0.0.1:", port));
    client_ = std::make_unique<rollout::WorkerClient>(
        channel,
        rollout::WorkerClient::Options{.hello = hello,
                                       .retry_min = absl::Milliseconds(5),
                                       .retry_max = absl::Milliseconds(50)},
        rollout::WorkerClient::Events{
            .on_message =
                [this](v1::CoordinatorMessage m) {
                  worker_.OnMessage(std::move(m));
                },
            .on_refused = [this](const absl::Status& s) { worker_.Stop(s); }});
    weights_ = std::make_unique<weights::WeightsClient>(
        channel,
        weights::WeightsClient::Options{.holder = name,
                                        .arch_hash = "",
                                        .retry_min = absl::Milliseconds(5),
                                        .retry_max = absl::Milliseconds(50)},
        [this](weights::PublishedWeights w) {
          worker_.OnWeights(std::move(w));
          absl::MutexLock lock(&mutex_);
          ++weights_seen_;
        });
    thread_ = std::thread([this] { result_ = worker_.Run(*client_); });
  }
  ~WorkerProcess() {
    if (thread_.joinable()) Stop();
  }
  // Until so many versions were handed to the worker.
  void AwaitWeights(int count) {
    absl::MutexLock lock(&mutex_);
    const auto seen = [&] { return weights_seen_ >= count; };
    mutex_.Await(absl::Condition(&seen));
  }
  void Stop() {
    worker_.Stop();
    EXPECT_TRUE(Join().ok());
  }
  absl::Status Join() {
    thread_.join();
    weights_.reset();
    client_.reset();  // like a process that ends
    return result_;
  }

  rollout::FakeEnvs envs;
  rollout::FakeTeacher teacher;
  Queue<std::string> installs;

 private:
  const std::unique_ptr<Tokenizer> tokenizer_ = rollout::ByteTokenizer();
  RealClock clock_;
  metrics::Registry registry_;
  rollout::FakeEngine engine_{Wanderer};
  rollout::Worker worker_;
  std::unique_ptr<rollout::WorkerClient> client_;
  absl::Mutex mutex_;
  int weights_seen_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<weights::WeightsClient> weights_;
  absl::Status result_;
  std::thread thread_;
};

std::string Dir(const std::string& name) {
  return ::testing::TempDir() + "rollout_learner_" + name;
}

// What was played, without who played it and when.
std::string Essence(std::vector<v1::Trajectory> trajectories) {
  std::string all;
  for (v1::Trajectory& t : trajectories) {
    t.clear_worker();
    t.clear_started_us();
    t.clear_ended_us();
    t.clear_lease_id();
    t.clear_incarnation();
    t.mutable_id()->clear_attempt();
    for (v1::Turn& turn : *t.mutable_turns()) {
      turn.clear_generate_us();
      turn.clear_env_us();
      turn.clear_teacher_us();
    }
    for (v1::Sequence& s : *t.mutable_sequences()) {
      for (v1::Span& span : *s.mutable_spans()) span.clear_versions();
    }
    absl::StrAppend(&all, t.SerializeAsString(), "\n");
  }
  return all;
}

TEST(RolloutLearner, WorkerPlaysAStepOnTheWeightsItWasLeasedFor) {
  Learner learner(Dir("step"), 1);
  learner.Publish(1, 0, 100);
  WorkerProcess worker("rollout-0", learner.port());
  for (uint32_t step = 1; step <= 3; ++step) {
    learner.Open(step);
    const auto trajectories = learner.Collect(step);
    ASSERT_THAT(trajectories, SizeIs(24));
    for (const v1::Trajectory& t : trajectories) {
      EXPECT_EQ(t.worker(), "rollout-0");
      EXPECT_EQ(t.config_hash(), HashHex("name: run"));
      EXPECT_EQ(t.outcome().length(), t.turns_size());
      EXPECT_EQ(t.sequences_size(), t.turns_size());
      for (const v1::Sequence& s : t.sequences()) {
        EXPECT_EQ(s.spans(0).versions(0).version().SerializeAsString(),
                  learner.version().SerializeAsString());
        EXPECT_EQ(s.spans(0).teacher(0).logprobs_size(), s.spans(0).length());
      }
    }
    EXPECT_EQ(*worker.installs.Pop(), learner.version().root_hash());
    // The next step's leases are granted before the weights have arrived.
    learner.Publish(1, step, 100 + step);
  }
}

TEST(RolloutLearner, WeightsThatComeWhileEpisodesPlayWaitForTheirEnd) {
  Learner learner(Dir("swap"), 1);
  learner.Publish(1, 0, 100);
  WorkerProcess worker("rollout-0", learner.port());
  const v1::WeightVersion first = learner.version();
  EXPECT_EQ(*worker.installs.Pop(), first.root_hash());
  worker.envs.Hold();
  learner.Open(1, 2, 4);  // all eight at once
  worker.envs.AwaitWaiting(8);
  learner.Publish(1, 1, 101);
  const v1::WeightVersion second = learner.version();
  worker.AwaitWeights(2);
  // Every episode ends under the weights it began with, one reply at a time.
  Rng rng(1);
  for (int i = 0; i < 10; ++i) {
    worker.envs.AwaitWaiting(1);
    EXPECT_EQ(worker.installs.size(), 0u) << "swapped while episodes play";
    worker.envs.ReleaseOne(rng);
  }
  worker.envs.Release();
  for (const v1::Trajectory& t : learner.Collect(1)) {
    for (const v1::Sequence& s : t.sequences()) {
      ASSERT_EQ(s.spans(0).versions_size(), 1);
      EXPECT_EQ(s.spans(0).versions(0).count(), s.spans(0).length());
      EXPECT_EQ(s.spans(0).versions(0).version().SerializeAsString(),
                first.SerializeAsString());
    }
  }
  EXPECT_EQ(*worker.installs.Pop(), second.root_hash());
}

TEST(RolloutLearner, NumberOfWorkersChangesNothing) {
  const auto play = [](int workers) {
    Learner learner(Dir("many"), 1);
    learner.Publish(1, 0, 100);
    std::vector<std::unique_ptr<WorkerProcess>> all;
    for (int i = 0; i < workers; ++i) {
      all.push_back(std::make_unique<WorkerProcess>(absl::StrCat("rollout-", i),
                                                    learner.port()));
    }
    learner.Open(1);
    return Essence(learner.Collect(1));
  };
  EXPECT_EQ(play(1), play(3));
}

TEST(RolloutLearner, WorkerThatLeavesCostsNoSample) {
  Learner calm(Dir("calm"), 1);
  calm.Publish(1, 0, 100);
  WorkerProcess only("rollout-0", calm.port());
  calm.Open(1);
  const std::string expected = Essence(calm.Collect(1));

  Learner learner(Dir("leaves"), 1);
  learner.Publish(1, 0, 100);
  WorkerProcess first("rollout-0", learner.port());
  first.envs.Hold();  // it never gets anywhere
  learner.Open(1);
  first.installs.Pop();
  WorkerProcess second("rollout-1", learner.port());
  first.Stop();
  EXPECT_EQ(Essence(learner.Collect(1)), expected);
}

TEST(RolloutLearner, LearnerThatComesBackGetsTheWholeStep) {
  Learner calm(Dir("calm"), 1);
  calm.Publish(1, 0, 100);
  WorkerProcess only("rollout-0", calm.port());
  calm.Open(1);
  const std::string expected = Essence(calm.Collect(1));

  auto learner = std::make_unique<Learner>(Dir("first_life"), 1);
  const uint16_t port = learner->port();
  learner->Publish(1, 0, 100);
  WorkerProcess worker("rollout-0", port);
  worker.teacher.Hold();
  learner->Open(1);
  // Something is played and not handed in when the learner dies.
  worker.teacher.AwaitWaiting();
  learner = nullptr;
  worker.teacher.Release();
  learner = std::make_unique<Learner>(Dir("second_life"), 2, port);
  learner->Publish(2, 0, 100);
  learner->Open(1);
  const auto trajectories = learner->Collect(1);
  for (const v1::Trajectory& t : trajectories) {
    EXPECT_EQ(t.incarnation(), 2);
  }
  EXPECT_EQ(Essence(trajectories), expected);
}

TEST(RolloutLearner, WorkThatFailsIsGivenOutAgain) {
  Learner learner(Dir("fails"), 1);
  learner.Publish(1, 0, 100);
  WorkerProcess worker("rollout-0", learner.port());
  worker.envs.FailNext({absl::NotFoundError("task_id"),
                        absl::UnavailableError("down"),
                        absl::NotFoundError("task_id")});
  learner.Open(1);
  const auto trajectories = learner.Collect(1);
  EXPECT_THAT(trajectories, SizeIs(24));
  uint32_t attempts = 0;
  for (const v1::Trajectory& t : trajectories) attempts += t.id().attempt();
  EXPECT_GT(attempts, 0);
}

TEST(RolloutLearner, AStrangersEnvironmentServerEndsItsWorkerAndCostsNoGame) {
  Learner learner(Dir("stranger"), 1);
  learner.Publish(1, 0, 100);
  WorkerProcess stranger("rollout-0", learner.port());
  envs::EnvDescription other = rollout::FakeEnvs::Corridor();
  other.splits[0].content_hash = "hash-of-other-games";
  stranger.envs.set_description(other);
  testing::internal::CaptureStderr();
  learner.Open(1);
  const absl::Status status = stranger.Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("found hash-of-other-games"));
  WorkerProcess worker("rollout-1", learner.port());
  EXPECT_THAT(learner.Collect(1), SizeIs(24));  // nothing is dropped
  EXPECT_THAT(
      testing::internal::GetCapturedStderr(),
      HasSubstr("warning: worker rollout-0 plays nothing: content_hash"));
}

TEST(RolloutLearner, LeasesGoBackFromAWorkerWhoseEnvironmentsAreSilent) {
  for (const bool described : {false, true}) {
    Learner learner(Dir("silent"), 1);
    learner.Publish(1, 0, 100);
    WorkerProcess silent("rollout-0", learner.port(), "t",
                         absl::Milliseconds(20));
    testing::internal::CaptureStderr();
    if (described) silent.envs.Hold();
    silent.envs.SetAway(!described);
    silent.installs.Pop();
    learner.Open(1);
    if (described) {
      silent.envs.AwaitWaiting(8);
      silent.envs.SetAway(true);
      silent.envs.Release();
    }
    {
      WorkerProcess other("rollout-1", learner.port());
      for (const v1::Trajectory& t : learner.Collect(1))
        EXPECT_EQ(t.worker(), "rollout-1");
    }
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_THAT(log, HasSubstr("warning: no environment server has answered"));
    EXPECT_THAT(log, HasSubstr("server x: nobody listens; leases go back"));
    EXPECT_THAT(log, HasSubstr("warning: worker rollout-0 plays nothing"));
    // It goes on when a server answers.
    silent.envs.SetAway(false);
    learner.Open(2);
    EXPECT_THAT(learner.Collect(2), SizeIs(24));
  }
}

TEST(RolloutLearner, DrainedWorkerFinishesAndLeaves) {
  Learner learner(Dir("drain"), 1);
  learner.Publish(1, 0, 100);
  WorkerProcess worker("rollout-0", learner.port());
  learner.Open(1, 1, 4);
  EXPECT_THAT(learner.Collect(1), SizeIs(4));
  learner.coordinator().Drain();
  EXPECT_TRUE(worker.Join().ok());
}

TEST(RolloutLearner, WorkerWithAnotherTokenizerIsRefusedAndSaysWhy) {
  Learner learner(Dir("refused"), 1);
  WorkerProcess worker("rollout-0", learner.port(), "other");
  const absl::Status status = worker.Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("tokenizer_hash: found other"));
}

}  // namespace
}  // namespace atod
