// atod-rollout: plays episodes with the student's newest weights.
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/config/program_args.h"
#include "common/config/values.h"
#include "common/engine/engine.h"
#include "common/metrics/metrics.h"
#include "common/model/model_config.h"
#include "common/model/threads.h"
#include "common/prompt/prompt_spec.h"
#include "common/rpc/address.h"
#include "common/rpc/channel.h"
#include "common/rpc/signal.h"
#include "common/tokenizer/tokenizer.h"
#include "common/weights/weights_client.h"
#include "services/envs/env_client.h"
#include "services/rollout/engine_options.h"
#include "services/rollout/worker.h"
#include "services/rollout/worker_client.h"
#include "services/teacher/teacher_pool.h"

namespace atod::rollout {
namespace {

// Brings a stop, by signal or by a peer's refusal, to the worker as soon as
// there is one. Thread-safe.
class StopSwitch {
 public:
  void Stop(const absl::Status& reason) {
    absl::MutexLock lock(&mutex_);
    if (!reason_.has_value()) reason_ = reason;
    if (worker_ != nullptr) worker_->Stop(*reason_);
  }
  void Set(Worker* worker) {
    absl::MutexLock lock(&mutex_);
    worker_ = worker;
    if (worker_ != nullptr && reason_.has_value()) worker_->Stop(*reason_);
  }

 private:
  absl::Mutex mutex_;
  Worker* worker_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::optional<absl::Status> reason_ ABSL_GUARDED_BY(mutex_);
};

// Replicas in containers all have index 0: the host tells them apart. The same
// after a restart, so that the learner knows who came back.
std::string WorkerName(uint32_t index) {
  char host[256] = {};
  if (gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0')
    return absl::StrCat("rollout-", index);
  return absl::StrCat(host, "-", index);
}

absl::StatusOr<std::unique_ptr<envs::EnvClient>> ConnectEnvs(
    const v1::RpcConfig& rpc) {
  ATOD_ASSIGN_OR_RETURN(const std::vector<rpc::Address> addresses,
                        rpc::ParseAddresses(rpc.envs(), "rpc.envs"));
  std::vector<envs::EnvServer> servers;
  for (const rpc::Address& address : addresses) {
    envs::EnvServer& server = servers.emplace_back();
    server.address = address.ToString();
    ATOD_ASSIGN_OR_RETURN(
        server.channel,
        rpc::Connect(server.address, rpc::Security(rpc), "rpc.envs"));
  }
  return std::make_unique<envs::EnvClient>(
      std::move(servers), absl::Seconds(rpc.timeout_seconds()));
}

absl::StatusOr<std::vector<std::shared_ptr<grpc::Channel>>> ConnectTeachers(
    const v1::RpcConfig& rpc) {
  ATOD_ASSIGN_OR_RETURN(const std::vector<rpc::Address> addresses,
                        rpc::ParseAddresses(rpc.teacher(), "rpc.teacher"));
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (const rpc::Address& address : addresses) {
    ATOD_ASSIGN_OR_RETURN(
        channels.emplace_back(),
        rpc::Connect(address.ToString(), rpc::Security(rpc), "rpc.teacher"));
  }
  return channels;
}

v1::Hello MakeHello(const v1::RunConfig& config, const std::string& name,
                    const std::string& life, const engine::ModelEngine& engine,
                    const Tokenizer& tokenizer) {
  v1::Hello hello;
  hello.set_worker(name);
  hello.set_life(life);
  hello.set_slots(config.rollout().slots());
  hello.add_envs(config.env().name());
  for (const char* layout : {kWindowed, kGrowing}) hello.add_layouts(layout);
  for (const auto& [key, value] : config::PlaySettings(config))
    (*hello.mutable_settings())[key] = value;
  v1::ModelInfo& model = *hello.mutable_model();
  model.set_name(config.model().path());
  model.set_arch_hash(model::ArchHash(engine.config()));
  model.set_tokenizer_hash(tokenizer.hash());
  model.set_template_hash(tokenizer.template_hash());
  model.set_vocab_size(static_cast<uint32_t>(engine.config().vocab_size));
  model.set_dtype(engine.back_end().dtype);
  model.set_device(engine.back_end().device);
  model.set_back_end(engine.back_end().name);
  model.set_max_context(static_cast<uint32_t>(engine.max_context()));
  return hello;
}

absl::Status Play(const config::ProgramArgs& args, StopSwitch& stop) {
  const v1::RunConfig& config = args.loaded.config;
  if (config.model().path().empty()) {
    return BadInput({.file = "",
                     .field = "model.path",
                     .line = 0,
                     .found = "nothing",
                     .expected = "the folder of a model"});
  }
  const std::string name = WorkerName(args.index);
  const std::string life =
      absl::StrCat(name, "-", getpid(), "-", absl::ToUnixMicros(absl::Now()));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        Tokenizer::Load(config.model().path()));
  model::SetComputeThreads(config.threads().rollout());
  ATOD_ASSIGN_OR_RETURN(const engine::EngineOptions engine_options,
                        EngineOptionsOf(config, *tokenizer));
  ATOD_ASSIGN_OR_RETURN(
      const std::unique_ptr<engine::ModelEngine> engine,
      engine::OpenEngine(config.model().path(), engine_options));
  spdlog::info("student: {}", engine->Description());

  const v1::RpcConfig& rpc = config.rpc();
  ATOD_ASSIGN_OR_RETURN(
      const auto learner,
      rpc::Connect(rpc.learner(), rpc::Security(rpc), "rpc.learner"));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<envs::EnvClient> envs,
                        ConnectEnvs(rpc));
  if (args.dry_run) return absl::OkStatus();

  metrics::Registry registry;
  const uint32_t port = config.metrics().rollout_port();
  ATOD_ASSIGN_OR_RETURN(
      const std::unique_ptr<metrics::MetricsServer> metrics_server,
      metrics::MetricsServer::Start(
          rpc.bind(), static_cast<uint16_t>(port == 0 ? 0 : port + args.index),
          registry));

  const model::BackEnd& back_end = engine->back_end();
  metrics::SetModelInfo(registry, "rollout", config.model().path(),
                        back_end.name, back_end.device, back_end.dtype);
  const auto refused = [&](const absl::Status& why) { stop.Stop(why); };
  std::unique_ptr<teacher::TeacherPool> teachers;
  if (!config.teachers().empty()) {
    ATOD_ASSIGN_OR_RETURN(const auto channels, ConnectTeachers(rpc));
    teachers = std::make_unique<teacher::TeacherPool>(
        channels,
        teacher::TeacherClient::Options{
            .tokenizer_hash = tokenizer->hash(),
            .vocab_size = static_cast<uint32_t>(engine->config().vocab_size),
            .timeout = absl::Seconds(rpc.timeout_seconds()),
            .on_refused = refused});
  }
  RealClock clock;
  Worker worker(
      *engine, *envs, *tokenizer, teachers.get(), clock, registry,
      {.name = name,
       .loop = {.slots = config.rollout().slots(),
                .max_context = static_cast<uint32_t>(engine->max_context()),
                .nonce = life,
                .teacher_patience = absl::Seconds(rpc.timeout_seconds())},
       .install =
           [&](const weights::WeightSnapshot& snapshot) {
             return engine->InstallWeights(snapshot);
           },
       .env_patience = absl::Seconds(rpc.timeout_seconds())});
  stop.Set(&worker);
  WorkerClient client(
      learner, {.hello = MakeHello(config, name, life, *engine, *tokenizer)},
      {.on_message =
           [&](v1::CoordinatorMessage message) {
             worker.OnMessage(std::move(message));
           },
       .on_refused = refused});
  auto weights = std::make_unique<weights::WeightsClient>(
      learner,
      weights::WeightsClient::Options{
          .holder = name, .arch_hash = model::ArchHash(engine->config())},
      [&](weights::PublishedWeights w) { worker.OnWeights(std::move(w)); });
  spdlog::info("{} plays for {}", name, rpc.learner());
  const absl::Status status = worker.Run(client);
  stop.Set(nullptr);
  weights.reset();  // its callbacks point to the worker
  spdlog::info("{} leaves", name);
  return status;
}

}  // namespace
}  // namespace atod::rollout

int main(int argc, char** argv) {
  atod::rollout::StopSwitch stop;
  atod::rpc::ShutdownSignals signals(
      [&stop](int) { stop.Stop(absl::OkStatus()); });
  atod::InitLogging("rollout");
  const atod::config::ProgramStart start = atod::config::ParseProgramArgs(
      "atod-rollout", "Play episodes with the newest weights", argc, argv);
  if (!start.args.has_value()) return start.exit_status;
  return atod::config::ExitStatus(atod::rollout::Play(*start.args, stop));
}
