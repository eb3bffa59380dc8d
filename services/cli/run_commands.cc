#include "services/cli/run_commands.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/base/printable.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/base/warn.h"
#include "common/config/config.h"
#include "common/rpc/health_client.h"
#include "common/run/run_folder.h"
#include "services/cli/command.h"
#include "services/cli/stopped_run.h"
#include "services/learner/advantage_file.h"
#include "services/learner/control_client.h"
#include "services/learner/ledger_check.h"
#include "services/learner/trajectory_store.h"

namespace atod::cli {
namespace {

namespace fs = std::filesystem;
using learner::WorkId;

// --- check-ledger.

absl::StatusOr<int> RunCheckLedger(const std::string& run_dir) {
  ATOD_ASSIGN_OR_RETURN(const RunFolder run, RunFolder::Find(run_dir));
  ATOD_ASSIGN_OR_RETURN(const learner::LedgerReport report,
                        learner::CheckRun(run));
  const learner::Ledger::Counts& c = report.counts;
  absl::PrintF("issued %d = consumed %d + dropped %d + in flight %d\n",
               c.issued, c.consumed, c.dropped, c.in_flight);
  absl::PrintF(
      "issued in all lives %d = consumed %d + dropped %d + superseded %d + in "
      "flight %d; lives: %d\n",
      c.issued_ever, c.consumed, c.dropped, c.superseded, c.in_flight,
      report.incarnation);
  absl::PrintF("%d digests of updates, %d payloads in the spool\n",
               report.updates, report.payloads);
  if (!report.forked_from.empty())
    absl::PrintF("forked from %s, whose ledger has the steps before\n",
                 report.forked_from);
  for (const auto& lines :
       {report.duplicates, report.gaps, report.digests, report.missing})
    for (const std::string& line : lines) absl::PrintF("%s\n", OneLine(line));
  return report.ok() ? 0 : 1;
}

// --- status.

struct StatusFlags {
  std::string run_dir;
  std::vector<std::string> config;
  std::vector<std::string> sets;
  std::string learner;
  bool insecure = false;
};

// The run, and where its learner listens: as a flag says, else as the
// configuration that the flags name or that the run wrote down, else the
// default.
absl::StatusOr<v1::RunConfig> LearnerOf(const StatusFlags& flags) {
  std::vector<std::string> files = flags.config;
  if (!flags.run_dir.empty()) {
    ATOD_ASSIGN_OR_RETURN(const RunFolder run, RunFolder::Find(flags.run_dir));
    files.push_back(run.config());
  }
  ATOD_ASSIGN_OR_RETURN(config::LoadedConfig loaded,
                        config::LoadRunConfig(files, flags.sets));
  v1::RpcConfig& rpc = *loaded.config.mutable_rpc();
  if (!flags.learner.empty()) rpc.set_learner(flags.learner);
  if (flags.insecure) rpc.set_insecure(true);
  return std::move(loaded.config);
}

// Of a run that is known by its folder and whose learner does not answer, or
// not for this run.
absl::StatusOr<int> TellStopped(const RunFolder& run,
                                const v1::RunConfig& config,
                                const std::string& why) {
  if (IsLearnerAtWork(run)) {
    return absl::UnavailableError(
        absl::StrCat(why, "; but a learner is at work in ", run.dir(),
                     ": it is starting, or does not answer; its log is ",
                     run.log("learner")));
  }
  absl::PrintF("run %s: no learner is at work (%s)\n%s", config.name(),
               OneLine(why),
               DescribeStoppedRun(run, config.steps(), absl::Now()));
  return 1;
}

// "cpu-exact on cpu, float32".
std::string Computing(const v1::ModelInfo& model) {
  return absl::StrCat(model.back_end(), " on ", model.device(), ", ",
                      model.dtype());
}

absl::StatusOr<int> RunStatus(const StatusFlags& flags) {
  ATOD_ASSIGN_OR_RETURN(const v1::RunConfig config, LearnerOf(flags));
  const v1::RpcConfig& rpc = config.rpc();
  const absl::StatusOr<v1::StatusReply> reply =
      learner::FetchStatus(rpc.learner(), rpc::Security(rpc));
  const bool by_folder = !flags.run_dir.empty() && flags.learner.empty();
  if (by_folder && (absl::IsUnavailable(reply.status()) ||
                    absl::IsDeadlineExceeded(reply.status())))
    return TellStopped(flags.run_dir, config,
                       std::string(reply.status().message()));
  ATOD_RETURN_IF_ERROR(reply.status());
  const v1::StatusReply& s = *reply;
  if (by_folder && s.run_id() != config.name())
    return TellStopped(
        flags.run_dir, config,
        absl::StrCat(rpc.learner(), " is the learner of run ", s.run_id()));
  absl::PrintF("run %s, incarnation %d\n", s.run_id(), s.incarnation());
  absl::PrintF("step %d of %d, %s\n", s.step(), s.steps(), s.phase());
  absl::PrintF("weights %d (%s)\n", s.version().number(),
               s.version().root_hash());
  absl::PrintF(
      "trajectories issued %d, consumed %d, dropped %d, in flight %d\n",
      s.issued(), s.consumed(), s.dropped(), s.in_flight());
  absl::PrintF("learner: %s\n", Computing(s.student()));
  for (const v1::ModelInfo& teacher : s.teachers())
    absl::PrintF("teacher %s: %s\n", teacher.name(), Computing(teacher));
  for (const v1::WorkerStatus& w : s.workers())
    absl::PrintF(
        "worker %s: %d leases, %d free slots, weights %d, heard %.1f s ago, "
        "%s\n",
        w.worker(), w.leases(), w.free_slots(), w.held().number(),
        w.silent_seconds(), Computing(w.model()));
  if (s.workers().empty()) absl::PrintF("no workers\n");
  return 0;
}

// --- health.

absl::StatusOr<int> RunHealth(const std::string& address, bool metrics) {
  constexpr absl::Duration kTimeout = absl::Seconds(10);
  ATOD_RETURN_IF_ERROR(metrics ? rpc::CheckMetrics(address, kTimeout)
                               : rpc::CheckHealth(address, kTimeout));
  absl::PrintF("%s: serving\n", address);
  return 0;
}

// --- trajectories.

const char* Verdict(const v1::Outcome& outcome) {
  if (outcome.done_reason() == v1::ERROR) return "left out";
  return outcome.success() ? "success" : "failure";
}

// "LIMIT", "ERROR (task: …)"
std::string EndOf(const v1::Outcome& outcome) {
  const std::string& reason = v1::DoneReason_Name(outcome.done_reason());
  if (!outcome.has_error()) return reason;
  return absl::StrCat(reason, " (", outcome.error().kind(), ": ",
                      OneLine(outcome.error().message()), ")");
}

absl::StatusOr<int> ListTrajectories(const std::string& run_dir, int64_t step,
                                     bool eval) {
  ATOD_ASSIGN_OR_RETURN(const RunFolder run, RunFolder::Find(run_dir));
  const std::string dir = run.spool();
  const v1::Purpose purpose = eval ? v1::EVAL : v1::TRAIN;
  ATOD_ASSIGN_OR_RETURN(const std::vector<uint32_t> steps,
                        learner::StoredSteps(dir, purpose));
  if (step >= 0 && !std::binary_search(steps.begin(), steps.end(), step)) {
    return BadInput(
        {.file = dir,
         .field = "--step",
         .found = absl::StrCat(step),
         .expected = steps.empty()
                         ? "a run that has stored one"
                         : absl::StrCat("a stored one, of ", steps.front(),
                                        " to ", steps.back())});
  }
  std::string damage;
  for (const uint32_t s : steps) {
    if (step >= 0 && s != step) continue;
    std::map<WorkId, std::string> lines;  // canonical order
    const absl::Status read = learner::SalvageTrajectories(
        learner::TrajectoryFile(dir, purpose, s), [&](v1::Trajectory t) {
          lines[learner::IdOf(t)] = absl::StrFormat(
              "%s %s %s reward %g %s, %d turns, %s, attempt %d, %s",
              learner::FormatId(learner::IdOf(t)), t.task().task_id(),
              t.task().category(), t.outcome().reward(), Verdict(t.outcome()),
              t.outcome().length(), EndOf(t.outcome()), t.id().attempt(),
              t.worker());
        });
    for (const auto& [id, line] : lines) absl::PrintF("%s\n", OneLine(line));
    if (absl::IsUnavailable(read)) {
      LogWarning(std::string(read.message()));
    } else if (!read.ok()) {
      absl::StrAppend(&damage, read.message(), "; ");
    }
  }
  if (damage.empty()) return 0;
  return absl::DataLossError(absl::StrCat(
      damage, "`atod check-ledger` names the trajectories that are missing"));
}

// What the learner computed of one trajectory, if it trained.
absl::StatusOr<std::optional<learner::StoredAdvantages>> Advantages(
    const std::string& dir, const WorkId& id) {
  const std::string path = learner::AdvantageFile(dir, id.step);
  if (id.purpose != v1::TRAIN || !fs::exists(path)) return std::nullopt;
  ATOD_ASSIGN_OR_RETURN(std::vector<learner::StoredAdvantages> all,
                        learner::ReadAdvantages(path));
  for (learner::StoredAdvantages& stored : all)
    if (stored.id == learner::FormatId(id)) return std::move(stored);
  return std::nullopt;
}

void PrintTurn(const v1::Turn& turn, const learner::StoredTurn* computed) {
  absl::PrintF("\n-- turn %d%s\n", turn.index(),
               turn.trainable() ? "" : " (replayed)");
  if (!turn.observation().empty())
    absl::PrintF("observation: %s\n", Printable(turn.observation()));
  absl::PrintF("text: %s\n", Printable(turn.action_text()));
  absl::PrintF("action: %s%s%s\n", OneLine(turn.executed_action()),
               turn.valid() ? "" : " (invalid)",
               turn.admissible() ? "" : " (not admissible)");
  if (computed == nullptr) return;
  const auto number = [](double value) {
    return std::isnan(value) ? "-" : absl::StrFormat("%.4f", value);
  };
  absl::PrintF("d %s  h %s  w %s\n", number(computed->d), number(computed->h),
               number(computed->w));
  absl::PrintF("advantages:");
  for (const double a : computed->advantages) absl::PrintF(" %s", number(a));
  absl::PrintF("\n");
}

absl::StatusOr<int> ShowTrajectory(const std::string& run_dir,
                                   const std::string& name) {
  ATOD_ASSIGN_OR_RETURN(const RunFolder run, RunFolder::Find(run_dir));
  ATOD_ASSIGN_OR_RETURN(const WorkId id, learner::ParseId(name));
  ATOD_ASSIGN_OR_RETURN(const v1::Trajectory found,
                        learner::FindTrajectory(run, id));
  ATOD_ASSIGN_OR_RETURN(const std::optional<learner::StoredAdvantages> computed,
                        Advantages(run.spool(), id));
  absl::PrintF("trajectory %s, task %s (%s), worker %s, attempt %d\n", name,
               OneLine(found.task().task_id()),
               OneLine(found.task().category()), OneLine(found.worker()),
               found.id().attempt());
  absl::PrintF("reward %g, %s, %d turns, %s\n", found.outcome().reward(),
               Verdict(found.outcome()), found.outcome().length(),
               EndOf(found.outcome()));
  std::map<uint32_t, const learner::StoredTurn*> by_turn;
  if (computed.has_value()) {
    absl::PrintF("GRPO advantage %.4f, update %.0f\n", computed->grpo_advantage,
                 computed->update);
    for (const learner::StoredTurn& turn : computed->turns)
      by_turn[turn.index] = &turn;
  }
  for (const v1::Turn& turn : found.turns()) {
    const auto it = by_turn.find(turn.index());
    PrintTurn(turn, it == by_turn.end() ? nullptr : it->second);
  }
  return 0;
}

}  // namespace

void AddRunCommands(Command app) {
  auto flags = std::make_shared<StatusFlags>();
  Command status = app.Add("status", "what a running learner does right now",
                           [=] { return RunStatus(*flags); });
  status.Arg("RUN_DIR", flags->run_dir,
             "folder of the run, which knows the learner's address; "
             "also of one that has stopped");
  status.ConfigFlags(flags->config, flags->sets);
  status.Arg("--learner", flags->learner, "address, instead of rpc.learner");
  status.Flag("--insecure", flags->insecure,
              "allow plaintext beyond loopback (rpc.insecure)");

  auto address = std::make_shared<std::string>();
  auto metrics = std::make_shared<bool>(false);
  Command health = app.Add("health", "whether a service answers; for probes",
                           [=] { return RunHealth(*address, *metrics); });
  health.Arg("HOST:PORT", *address, "of its gRPC server").Required();
  health.Flag("--metrics", *metrics,
              "ask /metrics instead: a rollout worker has no server");

  auto run_dir = std::make_shared<std::string>();
  auto step = std::make_shared<int64_t>(-1);
  auto eval = std::make_shared<bool>(false);
  auto id = std::make_shared<std::string>();
  Command trajectories = app.Add("trajectories", "the episodes of a run");
  Command list = trajectories.Add(
      "list", "one line an accepted trajectory",
      [=] { return ListTrajectories(*run_dir, *step, *eval); });
  list.Arg("RUN_DIR", *run_dir).Required();
  list.Arg("--step", *step, "only this step");
  list.Flag("--eval", *eval, "evaluation instead of training");
  Command show = trajectories.Add(
      "show", "one trajectory: text, actions, d, h, w, advantage",
      [=] { return ShowTrajectory(*run_dir, *id); });
  show.Arg("RUN_DIR", *run_dir).Required();
  show.Arg("ID", *id, "STEP/GROUP/SAMPLE or eval/STEP/GROUP/SAMPLE").Required();

  Command check = app.Add(
      "check-ledger", "recount a run's ledger; exit 1 when it does not hold",
      [=] { return RunCheckLedger(*run_dir); });
  check.Arg("RUN_DIR", *run_dir).Required();
}

}  // namespace atod::cli
