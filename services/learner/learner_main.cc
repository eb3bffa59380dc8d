// atod-learner: owns a run. See learner_run.h for what it does.
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/clock.h"
#include "common/base/disk.h"
#include "common/base/file.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/collective/communicator.h"
#include "common/config/config.h"
#include "common/config/program_args.h"
#include "common/config/values.h"
#include "common/device/device.h"
#include "common/metrics/metrics.h"
#include "common/metrics/step_recorder.h"
#include "common/model/threads.h"
#include "common/rpc/address.h"
#include "common/rpc/server.h"
#include "common/rpc/signal.h"
#include "common/run/run_folder.h"
#include "common/tokenizer/tokenizer.h"
#include "common/weights/version_store.h"
#include "common/weights/weights_service.h"
#include "services/learner/control_service.h"
#include "services/learner/coordinator.h"
#include "services/learner/intake.h"
#include "services/learner/learner_run.h"
#include "services/learner/learner_service.h"
#include "services/learner/ledger.h"
#include "services/learner/peers_client.h"
#include "services/learner/policy_trainer.h"
#include "services/learner/recipe_of.h"
#include "services/learner/run_checkpoint.h"
#include "services/learner/run_start.h"
#include "services/learner/run_state.h"
#include "services/learner/trajectory_store.h"

namespace atod::learner {
namespace {

namespace fs = std::filesystem;

// How long workers get to leave after the last step.
constexpr absl::Duration kDrain = absl::Seconds(5);
constexpr absl::Duration kRetry = absl::Milliseconds(250);

// What a signal reaches, from the moment that it exists.
struct StopSwitch {
  RunState state;
  absl::Notification stopping;
  absl::Mutex mutex;
  Coordinator* coordinator ABSL_GUARDED_BY(mutex) = nullptr;

  void Stop() {
    spdlog::info("stopping: the run ends with a checkpoint");
    state.RequestStop();
    stopping.Notify();
    absl::MutexLock lock(&mutex);
    if (coordinator != nullptr) coordinator->Close();
  }
  void Attach(Coordinator* c) {
    absl::MutexLock lock(&mutex);
    coordinator = c;
    if (c != nullptr && stopping.HasBeenNotified()) c->Close();
  }
};

PolicyTrainerOptions TrainerOptions(const v1::RunConfig& c,
                                    const Recipe& recipe) {
  PolicyTrainerOptions options;
  options.recipe = recipe;
  options.beta1 = c.optimizer().beta1();
  options.beta2 = c.optimizer().beta2();
  options.weight_decay = c.optimizer().weight_decay();
  options.grad_clip = c.optimizer().grad_clip();
  options.updates_per_step = c.optimizer().updates_per_step();
  options.turns_per_update = c.optimizer().turns_per_update();
  options.micro_batch_tokens = c.optimizer().micro_batch_tokens();
  options.recompute_old = c.algorithm().old_logprob_source() == "recompute";
  options.seed = c.seed();
  options.reference_dir = c.algorithm().reference().empty()
                              ? c.model().path()
                              : c.algorithm().reference();
  options.dtype = c.model().dtype();
  options.deterministic = c.deterministic();
  return options;
}

absl::Status Serve(const config::ProgramArgs& args, StopSwitch& stop) {
  const v1::RunConfig& config = args.loaded.config;
  const RunFolder run(config.runs_dir(), config.name());
  ATOD_RETURN_IF_ERROR(CheckFolder(run, args.resume));
  ATOD_RETURN_IF_ERROR(RequireLocalDisk(run.dir()));
  if (!fs::is_directory(config.model().path())) {
    return BadInput({.file = "configuration",
                     .field = "model.path",
                     .found = absl::StrCat("'", config.model().path(), "'"),
                     .expected = "the folder of a model"});
  }
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        Tokenizer::Load(config.model().path()));
  ATOD_RETURN_IF_ERROR(CheckRecipeInputs(config));

  // Nobody else touches the folder from here on.
  std::unique_ptr<FolderLock> lock;
  if (!args.dry_run) {
    ATOD_ASSIGN_OR_RETURN(lock, run.Lock());
    TidyCheckpoints(run);
  }

  ATOD_ASSIGN_OR_RETURN(RunStart begin, FindStart(run, config.runs_dir(),
                                                  {.resume = args.resume,
                                                   .fork = args.fork,
                                                   .dry_run = args.dry_run}));
  const ForkOrigin& origin = begin.origin;
  const std::string checkpoint_dir = begin.from.dir;
  const CheckpointFolder checkpoint(checkpoint_dir);
  ATOD_RETURN_IF_ERROR(TellChanges(begin.from, config));
  RunCheckpoint start = std::move(begin.from.state);
  ATOD_ASSIGN_OR_RETURN(const Recipe recipe, RecipeOf(config.algorithm()));
  model::SetComputeThreads(config.threads().learner());
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceBackend> device,
                        OpenDevice(config.device()));
  const std::unique_ptr<Communicator> communicator = MakeLocalCommunicator();
  ATOD_ASSIGN_OR_RETURN(
      const std::unique_ptr<PolicyTrainer> trainer,
      PolicyTrainer::Load(
          checkpoint_dir.empty() ? config.model().path() : checkpoint.model(),
          TrainerOptions(config, recipe), communicator.get(), device.get()));
  if (!checkpoint_dir.empty()) {
    ATOD_RETURN_IF_ERROR(trainer->LoadOptimizer(checkpoint.optimizer()));
  }
  if (args.dry_run) return absl::OkStatus();

  // A port that is taken is found before anything is changed.
  RealClock clock;
  metrics::Registry registry;
  ATOD_ASSIGN_OR_RETURN(
      std::unique_ptr<metrics::MetricsServer> metrics_server,
      metrics::MetricsServer::Start(
          config.rpc().bind(),
          static_cast<uint16_t>(config.metrics().learner_port()), registry));

  // The folder.
  const std::string yaml = config::ResolvedYaml(config);
  for (const std::string& folder : {run.checkpoints(), run.evals(), run.logs()})
    ATOD_RETURN_IF_ERROR(MakeDirs(folder));
  ATOD_RETURN_IF_ERROR(WriteFileAtomic(run.config(), yaml));
  if (!checkpoint_dir.empty())
    ATOD_RETURN_IF_ERROR(PointLast(run, checkpoint_dir));
  const std::string ledger_path = run.ledger();
  const bool own_checkpoint = origin.run.empty() || start.step > origin.step;
  if (!checkpoint_dir.empty() && own_checkpoint && !fs::exists(ledger_path)) {
    spdlog::warn("{} is gone: going on with the checkpoint's", ledger_path);
    ATOD_ASSIGN_OR_RETURN(const std::string bytes,
                          ReadFile(checkpoint.ledger()));
    ATOD_RETURN_IF_ERROR(WriteFileAtomic(ledger_path, bytes));
  }
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Ledger> ledger,
                        Ledger::Open(ledger_path));
  // The checkpoint's step was trained, but its evaluation may be missing.
  const int64_t last = start.last_recorded();
  Continuation from;
  from.last_step = start.step;
  from.last_eval = last;
  if (!checkpoint_dir.empty()) from.snapshot = checkpoint.ledger();
  from.forked_from = origin.ToString();
  from.fork_step = origin.step;
  ATOD_ASSIGN_OR_RETURN(const uint32_t incarnation,
                        ledger->StartIncarnation(from));
  KillPoint(KillLabel::kIncarnationStarted);
  ATOD_RETURN_IF_ERROR(
      SupersedeAfter(run.spool(), start.step, last, incarnation));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<TrajectoryStore> store,
                        TrajectoryStore::Open(run.spool()));

  ATOD_ASSIGN_OR_RETURN(
      const std::unique_ptr<metrics::StepRecorder> recorder,
      metrics::StepRecorder::Open(run, config.name(), last, &registry, clock));

  // The core.
  CoordinatorOptions options;
  options.run_id = config.name();
  options.incarnation = incarnation;
  options.config_yaml = yaml;
  options.model.set_arch_hash(trainer->arch_hash());
  options.model.set_tokenizer_hash(tokenizer->hash());
  options.settings = config::PlaySettings(config);
  options.beat_seconds = static_cast<float>(config.rollout().beat_seconds());
  options.grace = absl::Seconds(config.rollout().grace_seconds());
  options.silent = absl::Seconds(config.rollout().silent_seconds());
  options.max_tries = static_cast<int>(config.env().max_tries());
  Coordinator coordinator(options, &clock);
  Intake intake(
      &coordinator, ledger.get(), store.get(),
      TrajectoryLimits{trainer->vocab_size(), config.model().max_context()});
  stop.Attach(&coordinator);

  // The services.
  LearnerServiceImpl::Observers observers;
  observers.on_verdict = [&](v1::SubmitReply::Verdict verdict) {
    registry
        .Counter(metrics::kLearnerTrajectories,
                 {{"verdict", v1::SubmitReply::Verdict_Name(verdict)}})
        .Increment();
  };
  observers.on_tick = [&] {
    registry.Gauge(metrics::kLearnerWorkers).Set(coordinator.connected());
    registry.Gauge(metrics::kLearnerInFlight)
        .Set(static_cast<double>(coordinator.totals().leased));
  };
  LearnerServiceImpl learner_service(coordinator, intake, observers);
  ControlServiceImpl control_service(config.name(), incarnation, stop.state,
                                     coordinator, *ledger);
  weights::VersionStore versions;
  weights::WeightsServiceImpl weights_service(versions);
  weights::WeightsFetchService fetch_service(versions);
  ATOD_ASSIGN_OR_RETURN(
      const std::string address,
      rpc::ListenAddress(config.rpc().bind(), config.rpc().learner(),
                         "rpc.learner"));
  ATOD_ASSIGN_OR_RETURN(
      const std::unique_ptr<rpc::RpcServer> server,
      rpc::Listen(
          {.address = address,
           .services = {&learner_service, &control_service, &weights_service},
           .generic = &fetch_service,
           .security = rpc::Security(config.rpc())}));
  spdlog::info("run {}, incarnation {}, listening on {}", config.name(),
               incarnation, server->address());
  if (!checkpoint_dir.empty())
    spdlog::info("going on after step {} from {}", start.step, checkpoint_dir);

  // Peers, then the run.
  const KeepTrying keep_trying = [&] {
    return !stop.stopping.WaitForNotificationWithTimeout(kRetry);
  };
  absl::Status status = [&]() -> absl::Status {
    RunParts parts;
    ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<EnvPeers> envs,
                          EnvPeers::Connect(config, keep_trying));
    if (recipe.needs_teacher) {
      ATOD_ASSIGN_OR_RETURN(
          parts.teacher_hashes,
          CheckTeacher(config, tokenizer->hash(), keep_trying));
    }
    parts.config = &config;
    parts.recipe = &recipe;
    parts.folder = &run;
    parts.incarnation = incarnation;
    parts.tokenizer_hash = tokenizer->hash();
    parts.tokenizer_file_hash = tokenizer->file_hash();
    parts.config_hash = HashHex(yaml);
    parts.world_size = communicator->world_size();
    parts.coordinator = &coordinator;
    parts.ledger = ledger.get();
    parts.trainer = trainer.get();
    parts.tasks = envs.get();
    parts.versions = &versions;
    parts.state = &stop.state;
    parts.recorder = recorder.get();
    parts.registry = &registry;
    parts.clock = &clock;
    return LearnerRun(std::move(parts), std::move(start)).Run();
  }();
  // A stop while peers were waited for is no failure.
  if (absl::IsCancelled(status) && stop.stopping.HasBeenNotified())
    status = absl::OkStatus();
  spdlog::info("run {}: {}", config.name(),
               status.ok() ? stop.state.Status().phase()
                           : std::string(status.message()));

  stop.Attach(nullptr);
  // It takes a second to stop; workers that left should not wait for us.
  metrics_server.reset();
  coordinator.Drain();
  coordinator.WaitEmpty(kDrain);
  learner_service.EndStreams();
  control_service.EndStreams();
  server->Shutdown(absl::Seconds(2));
  return status;
}

int Main(int argc, char** argv) {
  StopSwitch stop;
  rpc::ShutdownSignals signals([&](int) { stop.Stop(); });
  const config::ProgramStart program = config::ParseProgramArgs(
      "atod-learner",
      "Owns a run: gives out work, trains, publishes weights, evaluates", argc,
      argv);
  if (!program.args.has_value()) return program.exit_status;
  InitLogging("learner");
  const absl::Status status = Serve(*program.args, stop);
  return config::ExitStatus(status);
}

}  // namespace
}  // namespace atod::learner

int main(int argc, char** argv) { return atod::learner::Main(argc, argv); }
