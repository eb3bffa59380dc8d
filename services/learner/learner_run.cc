#include "services/learner/learner_run.h"

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/error_share.h"
#include "common/base/file.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/base/stopwatch.h"
#include "common/base/warn.h"
#include "common/config/config.h"
#include "common/model/model_folder.h"
#include "common/weights/snapshot_file.h"
#include "services/learner/advantage_file.h"
#include "services/learner/step_builder.h"
#include "services/learner/step_settings.h"
#include "services/learner/trajectory_store.h"
#include "services/learner/work_id.h"

namespace atod::learner {
namespace {

namespace fs = std::filesystem;

double PeakMemoryBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

}  // namespace

LearnerRun::LearnerRun(RunParts parts, RunCheckpoint start)
    : parts_(std::move(parts)),
      config_(*parts_.config),
      checkpoint_(std::move(start)),
      evals_(config_.eval().mean_last(), checkpoint_.evals),
      skip_watch_(config_.steps()) {}

absl::Status LearnerRun::Prepare() {
  ATOD_ASSIGN_OR_RETURN(
      orders_, StepOrders::Open(config_, *parts_.recipe, *parts_.tasks));
  RunCheckpoint now = checkpoint_;
  now.run = config_.name();
  now.teacher_hashes = parts_.teacher_hashes;
  now.world_size = parts_.world_size;
  now.train_hash = orders_->train_hash();
  now.panel_hash = orders_->panel_hash();
  now.tokenizer_hash = parts_.tokenizer_hash;
  now.config_hash = parts_.config_hash;
  now.incarnation = parts_.incarnation;
  ATOD_RETURN_IF_ERROR(
      CheckSameRun(checkpoint_, now, parts_.tokenizer_file_hash));
  checkpoint_ = std::move(now);
  parts_.registry->Gauge(metrics::kLearnerSteps, {{"run", config_.name()}})
      .Set(config_.steps());
  parts_.registry->Gauge(metrics::kLearnerIncarnation).Set(parts_.incarnation);
  return absl::OkStatus();
}

void LearnerRun::ReadRecords() {
  for (const RecordedStep& step : parts_.recorder->kept()) {
    v1::StepRecord record;
    record.set_step(step.step);
    record.mutable_scalars()->insert(step.scalars.begin(), step.scalars.end());
    parts_.state->AddRecord(record);
    Scalars scalars = step.scalars;
    dead_signals_.Observe(scalars);
  }
  Scalars pending = checkpoint_.pending;
  if (!pending.empty()) dead_signals_.Observe(pending);
}

absl::Status LearnerRun::Publish() {
  ATOD_ASSIGN_OR_RETURN(weights::WeightSnapshot snapshot,
                        parts_.trainer->Export());
  version_.set_incarnation(parts_.incarnation);
  version_.set_number(checkpoint_.version);
  version_.set_root_hash(snapshot.root_hash);
  checkpoint_.root_hash = snapshot.root_hash;
  if (config_.checkpoint().keep_weights()) {
    // By content, so that a resume finds its own and writes nothing.
    const std::string path = parts_.folder->weights(snapshot.root_hash);
    ATOD_RETURN_IF_ERROR(MakeDirs(parts_.folder->weights()));
    if (!fs::exists(path))
      ATOD_RETURN_IF_ERROR(weights::WriteSnapshotFile(path, snapshot));
  }
  weights::PublishedWeights published;
  published.incarnation = parts_.incarnation;
  published.number = checkpoint_.version;
  published.arch_hash = parts_.trainer->arch_hash();
  published.snapshot =
      std::make_shared<const weights::WeightSnapshot>(std::move(snapshot));
  parts_.versions->Publish(std::move(published));
  parts_.state->SetVersion(version_);
  parts_.coordinator->Announce(version_);
  KillPoint(KillLabel::kVersionPublished);
  parts_.registry->Gauge(metrics::kLearnerWeightVersion)
      .Set(static_cast<double>(checkpoint_.version));
  return absl::OkStatus();
}

StepSettings LearnerRun::At(uint32_t step) const {
  return SettingsAt(config_, *parts_.recipe, step);
}

absl::StatusOr<OrderResult> LearnerRun::Play(v1::Purpose purpose, uint32_t step,
                                             std::vector<GroupOrder> groups) {
  std::vector<WorkId> work;
  std::vector<std::pair<std::string, uint32_t>> tasks;
  for (uint32_t g = 0; g < groups.size(); ++g) {
    for (uint32_t s = 0; s < groups[g].samples; ++s)
      work.push_back({purpose, step, g, s});
    const v1::Lease& base = groups[g].base;
    tasks.push_back(
        {absl::StrCat(base.split(), "/", base.task_id()), groups[g].samples});
    const auto why = checkpoint_.set_aside.find(tasks.back().first);
    if (why != checkpoint_.set_aside.end()) groups[g].set_aside = why->second;
  }
  ATOD_RETURN_IF_ERROR(parts_.ledger->Issue(work));
  ATOD_RETURN_IF_ERROR(
      parts_.coordinator->Open(purpose, step, std::move(groups)));
  ATOD_ASSIGN_OR_RETURN(OrderResult result,
                        parts_.coordinator->Wait(purpose, step));
  for (const DroppedSample& d : result.dropped) {
    spdlog::error("trajectory {} dropped: {}", FormatId(d.id), d.reason);
    ATOD_RETURN_IF_ERROR(parts_.ledger->Drop(d.id, d.reason));
  }
  SetAside(tasks, result.dropped);
  const double share = config_.env().max_error_share();
  const size_t failed = result.dropped.size();
  if (TooManyErrors(failed, work.size(), share)) {
    return absl::FailedPreconditionError(absl::StrCat(
        purpose == v1::EVAL ? "evaluation after step " : "step ", step, ": ",
        failed, " of ", work.size(), " episodes failed and were left out, ",
        result.trajectories.empty()
            ? "expected one at least that is played to its end"
            : absl::StrCat("expected at most the share env.max_error_share = ",
                           share),
        "; the first: ", result.dropped[0].reason));
  }
  return result;
}

void LearnerRun::SetAside(
    const std::vector<std::pair<std::string, uint32_t>>& tasks,
    const std::vector<DroppedSample>& dropped) {
  std::vector<uint32_t> failed(tasks.size());
  for (const DroppedSample& d : dropped) {
    const auto& [task, samples] = tasks[d.id.group];
    if (d.error != "task" || ++failed[d.id.group] < samples) continue;
    if (checkpoint_.set_aside.try_emplace(task, d.reason).second)
      LogWarning(absl::StrCat(
          "task ", task, " is set aside for the rest of the run: ", d.reason));
  }
}

absl::StatusOr<LearnerRun::Scalars> LearnerRun::TrainStep(uint32_t step) {
  const Stopwatch whole(parts_.clock);
  const StepSettings settings = At(step);
  ATOD_ASSIGN_OR_RETURN(std::vector<GroupOrder> groups,
                        orders_->Training(settings, version_));
  parts_.state->SetPhase("rollout");
  const Stopwatch rollout(parts_.clock);
  ATOD_ASSIGN_OR_RETURN(const OrderResult played,
                        Play(v1::TRAIN, step, std::move(groups)));
  const std::vector<v1::Trajectory>& trajectories = played.trajectories;
  const double rollout_seconds = rollout.Seconds();

  parts_.state->SetPhase("update");
  ATOD_ASSIGN_OR_RETURN(StepData data,
                        BuildStepData(trajectories, orders_->teacher()));
  ATOD_ASSIGN_OR_RETURN(const TrainedStep trained,
                        parts_.trainer->TrainStep(settings, data));
  KillPoint(KillLabel::kUpdateDone);
  ATOD_RETURN_IF_ERROR(Consume(step, data, trained));

  Scalars scalars = trained.metrics;
  const double skipped = scalars.at("actor/skipped_updates");
  if (skipped > 0) {
    spdlog::error("step {}: {} updates skipped, their gradient was not finite",
                  step, skipped);
  }
  ATOD_RETURN_IF_ERROR(skip_watch_.Add(step, skipped, trained.updates.size()));
  scalars.merge(EpisodeMetrics(trajectories));
  scalars.merge(DroppedMetrics(played.dropped, "episode"));
  scalars.merge(StalenessMetrics(trajectories, checkpoint_.version));
  dead_signals_.Observe(scalars);

  checkpoint_.step = step;
  checkpoint_.updates += trained.updates.size();
  ++checkpoint_.version;
  saved_ = false;
  parts_.state->SetPhase("publish");
  const Stopwatch publish(parts_.clock);
  ATOD_RETURN_IF_ERROR(Publish());
  scalars["timing/publish_seconds"] = publish.Seconds();
  scalars["timing/rollout_seconds"] = rollout_seconds;
  if (const double s = std::exchange(checkpoint_seconds_, 0); s > 0)
    scalars["timing/checkpoint_seconds"] = s;
  const double seconds = whole.Seconds();
  double tokens = 0;
  for (const TrainSequence& s : data.sequences) tokens += s.tokens.size();
  scalars["timing/step_seconds"] = seconds;
  if (seconds > 0) {
    scalars["throughput/tokens_per_second"] = tokens / seconds;
    scalars["throughput/episodes_per_second"] = trajectories.size() / seconds;
  }
  scalars["memory/peak_bytes"] = PeakMemoryBytes();
  return scalars;
}

absl::Status LearnerRun::Consume(uint32_t step, const StepData& data,
                                 const TrainedStep& trained) {
  std::vector<std::vector<WorkId>> updates;
  for (const std::vector<int32_t>& update : trained.updates) {
    std::vector<WorkId>& ids = updates.emplace_back();
    for (const int32_t row : update) {
      ATOD_ASSIGN_OR_RETURN(const WorkId id,
                            ParseId(data.batch.trajectory_id[row]));
      ids.push_back(id);
    }
  }
  ATOD_RETURN_IF_ERROR(parts_.ledger->Consume(step, updates));
  KillPoint(KillLabel::kStepConsumed);
  return WriteAdvantages(AdvantageFile(parts_.folder->spool(), step),
                         data.batch, trained.advantages, trained.updates);
}

bool LearnerRun::EvaluationDue(uint32_t step) const {
  const uint32_t every = config_.eval().every();
  return every > 0 && (step % every == 0 || step == config_.steps());
}

absl::StatusOr<bool> LearnerRun::Evaluate(uint32_t step, Scalars& scalars,
                                          bool* best) {
  parts_.state->SetPhase("eval");
  const Stopwatch watch(parts_.clock);
  absl::StatusOr<std::vector<GroupOrder>> groups =
      orders_->Evaluation(At(step), version_);
  if (absl::IsCancelled(groups.status())) return false;
  ATOD_RETURN_IF_ERROR(groups.status());
  std::vector<v1::Task> tasks;
  for (const GroupOrder& group : *groups) tasks.push_back(group.task);
  const auto played = Play(v1::EVAL, step, *std::move(groups));
  if (absl::IsCancelled(played.status())) return false;
  ATOD_RETURN_IF_ERROR(played.status());
  std::vector<WorkId> ids;
  for (const v1::Trajectory& t : played->trajectories) ids.push_back(IdOf(t));
  ATOD_RETURN_IF_ERROR(parts_.ledger->Consume(step, {ids}));
  ATOD_RETURN_IF_ERROR(MakeDirs(parts_.folder->evals()));
  ATOD_RETURN_IF_ERROR(
      WriteFileAtomic(parts_.folder->panel(step),
                      PanelResults(played->trajectories, played->dropped, tasks,
                                   checkpoint_.panel_hash)));
  scalars.merge(PanelMetrics(played->trajectories));
  scalars.merge(DroppedMetrics(played->dropped, "val"));
  // Best, last and mean are of what was trained.
  if (step > 0) {
    *best = evals_.Add(scalars);
    checkpoint_.evals = evals_.history();
    if (*best) checkpoint_.best_step = step;
  }
  scalars["timing/eval_seconds"] = watch.Seconds();
  spdlog::info("evaluation after step {}: success {:.1f} % of {} tasks", step,
               100 * scalars["val/success_rate"], played->trajectories.size());
  if (!played->dropped.empty()) {
    LogWarning(absl::StrCat(
        "evaluation after step ", step, ": ", played->dropped.size(), " of ",
        tasks.size(), " panel tasks are left out of its means; the first: ",
        played->dropped[0].reason));
  }
  return true;
}

absl::Status LearnerRun::FinishStep(uint32_t step, Scalars scalars) {
  bool best = false;
  if (EvaluationDue(step)) {
    ATOD_ASSIGN_OR_RETURN(const bool done, Evaluate(step, scalars, &best));
    if (!done) {
      // The next life evaluates and records this step.
      checkpoint_.pending = std::move(scalars);
      return absl::CancelledError("stopped during an evaluation");
    }
  }
  checkpoint_.pending.clear();
  ATOD_RETURN_IF_ERROR(parts_.recorder->Record(step, scalars));
  KillPoint(KillLabel::kStepRecorded);
  v1::StepRecord record;
  record.set_step(step);
  record.set_incarnation(parts_.incarnation);
  if (const auto updates = scalars.find("actor/updates");
      updates != scalars.end()) {
    record.set_updates(static_cast<uint32_t>(updates->second));
  }
  record.mutable_scalars()->insert(scalars.begin(), scalars.end());
  parts_.state->AddRecord(record);
  parts_.registry->Gauge(metrics::kLearnerStep, {{"run", config_.name()}})
      .Set(step);
  parts_.registry->Gauge(metrics::kLearnerStepTime, {{"run", config_.name()}})
      .Set(absl::ToDoubleSeconds(parts_.clock->Now() - absl::UnixEpoch()));
  if (const auto reward = scalars.find("episode/reward");
      reward != scalars.end()) {
    spdlog::info(
        "step {}/{}: reward {:.3f}, success {:.1f} %, kl_coef {:.3f}, rl_coef "
        "{:.3f}, {:.1f} s",
        step, config_.steps(), reward->second,
        100 * scalars["episode/success_rate"], scalars["hybrid/kl_coef"],
        scalars["hybrid/rl_coef"], scalars["timing/step_seconds"]);
  }
  const uint32_t every = config_.checkpoint().every();
  const bool asked = parts_.state->TakeCheckpointRequest();
  if (best || asked || (step > 0 && every > 0 && step % every == 0))
    return SaveCheckpoint(best);
  return absl::OkStatus();
}

absl::Status LearnerRun::Run() {
  ATOD_RETURN_IF_ERROR(Prepare());
  ReadRecords();
  uint32_t next = checkpoint_.step + 1;
  parts_.state->SetStep(next, config_.steps());
  ATOD_RETURN_IF_ERROR(Publish());
  const auto finish_with = [&](absl::Status status) {
    // Told to stop: what is done so far is saved.
    return absl::IsCancelled(status) && parts_.state->stop_requested()
               ? absl::OkStatus()
               : status;
  };
  absl::Status status;
  if (!checkpoint_.pending.empty()) {
    Scalars pending = checkpoint_.pending;
    status = FinishStep(checkpoint_.step, std::move(pending));
  } else if (checkpoint_.step == 0 && config_.eval().every() > 0 &&
             checkpoint_.evals.empty()) {
    saved_ = false;
    status = FinishStep(0, {});
  }
  for (; status.ok() && next <= config_.steps(); ++next) {
    parts_.state->SetStep(next, config_.steps());
    parts_.state->WaitWhilePaused();
    if (parts_.state->stop_requested()) break;
    absl::StatusOr<Scalars> scalars = TrainStep(next);
    status =
        scalars.ok() ? FinishStep(next, *std::move(scalars)) : scalars.status();
  }
  if (status.ok()) parts_.state->SetStep(next, config_.steps());
  ATOD_RETURN_IF_ERROR(finish_with(status));
  if (!saved_) ATOD_RETURN_IF_ERROR(SaveCheckpoint(false));
  parts_.state->SetPhase(next > config_.steps() ? "done" : "stopped");
  return absl::OkStatus();
}

absl::Status LearnerRun::SaveCheckpoint(bool best) {
  parts_.state->SetPhase("checkpoint");
  const Stopwatch watch(parts_.clock);
  ATOD_RETURN_IF_ERROR(learner::SaveCheckpoint(
      *parts_.folder, checkpoint_, best, config_.checkpoint().keep(),
      [&](const CheckpointFolder& to) -> absl::Status {
        ATOD_RETURN_IF_ERROR(parts_.trainer->SaveModel(to.model()));
        ATOD_RETURN_IF_ERROR(
            model::CopyTokenizerFiles(config_.model().path(), to.model()));
        ATOD_RETURN_IF_ERROR(
            WriteFileAtomic(to.config(), config::ResolvedYaml(config_)));
        ATOD_RETURN_IF_ERROR(parts_.trainer->SaveOptimizer(to.optimizer()));
        return parts_.ledger->SnapshotTo(to.ledger());
      }));
  ATOD_RETURN_IF_ERROR(parts_.ledger->Saved(checkpoint_.step));
  checkpoint_seconds_ = watch.Seconds();
  saved_ = true;
  spdlog::info("checkpoint of step {}{}", checkpoint_.step,
               best ? ", the best so far" : "");
  return absl::OkStatus();
}

}  // namespace atod::learner
