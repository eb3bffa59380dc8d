// atod-learner: owns a run. See learner_run.h for what it does.
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/clock.h"
#include "common/base/disk.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/collective/communicator.h"
#include "common/config/config.h"
#include "common/config/program_args.h"
#include "common/device/device.h"
#include "common/metrics/metrics.h"
#include "common/model/threads.h"
#include "common/rpc/signal.h"
#include "common/run/run_folder.h"
#include "common/tokenizer/tokenizer.h"
#include "services/learner/coordinator.h"
#include "services/learner/learner_host.h"
#include "services/learner/learner_run.h"
#include "services/learner/peers_client.h"
#include "services/learner/policy_trainer.h"
#include "services/learner/recipe_of.h"
#include "services/learner/run_checkpoint.h"
#include "services/learner/run_life.h"
#include "services/learner/run_start.h"
#include "services/learner/run_state.h"

namespace atod::learner {
namespace {

namespace fs = std::filesystem;

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
  options.model_device = c.device();
  options.deterministic = c.deterministic();
  return options;
}

// The student, as the run goes on with it.
struct Training {
  std::unique_ptr<DeviceBackend> device;
  std::unique_ptr<Communicator> communicator;
  std::unique_ptr<PolicyTrainer> trainer;  // uses the others
};

absl::StatusOr<Training> OpenTraining(const v1::RunConfig& config,
                                      const Recipe& recipe,
                                      const std::string& checkpoint_dir) {
  const bool fresh = checkpoint_dir.empty();
  const CheckpointFolder checkpoint(checkpoint_dir);
  Training out;
  model::SetComputeThreads(config.threads().learner());
  ATOD_ASSIGN_OR_RETURN(out.device, OpenDevice(config.device()));
  out.communicator = MakeLocalCommunicator();
  ATOD_ASSIGN_OR_RETURN(
      out.trainer,
      PolicyTrainer::Load(fresh ? config.model().path() : checkpoint.model(),
                          TrainerOptions(config, recipe),
                          out.communicator.get(), out.device.get()));
  if (!fresh)
    ATOD_RETURN_IF_ERROR(out.trainer->LoadOptimizer(checkpoint.optimizer()));
  return out;
}

v1::ModelInfo StudentInfo(const v1::RunConfig& config,
                          const PolicyTrainer& trainer,
                          const Tokenizer& tokenizer) {
  v1::ModelInfo info;
  info.set_name(config.model().path());
  info.set_arch_hash(trainer.arch_hash());
  info.set_tokenizer_hash(tokenizer.hash());
  info.set_template_hash(tokenizer.template_hash());
  info.set_vocab_size(trainer.vocab_size());
  info.set_dtype(trainer.back_end().dtype);
  info.set_max_context(config.model().max_context());
  info.set_device(trainer.back_end().device);
  info.set_back_end(trainer.back_end().name);
  return info;
}

// Waits for the peers, then runs. `parts` lacks what comes from them.
absl::Status RunWithPeers(RunParts parts, RunCheckpoint start,
                          StopSwitch& stop) {
  const v1::RunConfig& config = *parts.config;
  const KeepTrying keep_trying = [&] {
    return !stop.stopping.WaitForNotificationWithTimeout(kRetry);
  };
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<EnvPeers> envs,
                        EnvPeers::Connect(config, keep_trying));
  parts.tasks = envs.get();
  if (parts.recipe->needs_teacher) {
    ATOD_ASSIGN_OR_RETURN(
        const std::vector<v1::ModelInfo> teachers,
        CheckTeachers(config, parts.tokenizer_hash, keep_trying));
    for (const v1::ModelInfo& teacher : teachers)
      parts.teacher_hashes[teacher.name()] = teacher.weights_hash();
    stop.state.SetTeachers(teachers);
  }
  return LearnerRun(std::move(parts), std::move(start)).Run();
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
  ATOD_ASSIGN_OR_RETURN(const Recipe recipe, RecipeOf(config.algorithm()));

  // Nobody else touches the folder from here on.
  std::unique_ptr<FolderLock> lock;
  if (!args.dry_run) {
    ATOD_ASSIGN_OR_RETURN(lock, run.Lock());
    TidyCheckpoints(run);
  }
  ATOD_ASSIGN_OR_RETURN(RunStart start, FindStart(run, config.runs_dir(),
                                                  {.resume = args.resume,
                                                   .fork = args.fork,
                                                   .dry_run = args.dry_run}));
  ATOD_RETURN_IF_ERROR(TellChanges(start.from, config));
  ATOD_ASSIGN_OR_RETURN(const Training training,
                        OpenTraining(config, recipe, start.from.dir));
  const v1::ModelInfo student =
      StudentInfo(config, *training.trainer, *tokenizer);
  spdlog::info("model {}: back end {}, device {}, dtype {}", student.name(),
               student.back_end(), student.device(), student.dtype());
  if (args.dry_run) return absl::OkStatus();

  // A port that is taken is found before anything is changed.
  RealClock clock;
  metrics::Registry registry;
  metrics::SetModelInfo(registry, "learner", student.name(), student.back_end(),
                        student.device(), student.dtype());
  stop.state.SetStudent(student);
  ATOD_ASSIGN_OR_RETURN(
      std::unique_ptr<metrics::MetricsServer> metrics_server,
      metrics::MetricsServer::Start(
          config.rpc().bind(),
          static_cast<uint16_t>(config.metrics().learner_port()), registry));
  ATOD_ASSIGN_OR_RETURN(RunLife life,
                        BeginLife(run, config, start, &registry, clock));
  PolicyTrainer& trainer = *training.trainer;
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<LearnerHost> host,
                        LearnerHost::Start(config,
                                           {.arch_hash = trainer.arch_hash(),
                                            .tokenizer_hash = tokenizer->hash(),
                                            .vocab_size = trainer.vocab_size()},
                                           life, stop.state, registry, clock));
  stop.Attach(&host->coordinator());
  spdlog::info("run {}, incarnation {}, listening on {}", config.name(),
               life.incarnation, host->address());
  if (!start.from.dir.empty())
    spdlog::info("going on after step {} from {}", start.from.state.step,
                 start.from.dir);

  RunParts parts;
  parts.config = &config;
  parts.recipe = &recipe;
  parts.folder = &run;
  parts.incarnation = life.incarnation;
  parts.tokenizer_hash = tokenizer->hash();
  parts.tokenizer_file_hash = tokenizer->file_hash();
  parts.config_hash = HashHex(config::ResolvedYaml(config));
  parts.world_size = training.communicator->world_size();
  parts.coordinator = &host->coordinator();
  parts.ledger = life.ledger.get();
  parts.trainer = &trainer;
  parts.versions = &host->versions();
  parts.state = &stop.state;
  parts.recorder = life.recorder.get();
  parts.registry = &registry;
  parts.clock = &clock;
  absl::Status status =
      RunWithPeers(std::move(parts), std::move(start.from.state), stop);
  // A stop while peers were waited for is no failure.
  if (absl::IsCancelled(status) && stop.stopping.HasBeenNotified())
    status = absl::OkStatus();
  spdlog::info("run {}: {}", config.name(),
               status.ok() ? stop.state.Status().phase()
                           : std::string(status.message()));

  stop.Attach(nullptr);
  // It takes a second to stop; workers that left should not wait for us.
  metrics_server.reset();
  host->Drain();
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
