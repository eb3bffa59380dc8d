#include "services/learner/run_start.h"

#include <cstdint>
#include <filesystem>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/disk.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/base/warn.h"
#include "common/config/config.h"
#include "services/learner/ledger_check.h"
#include "services/learner/step_settings.h"

namespace atod::learner {
namespace {

namespace fs = std::filesystem;

bool HasRecords(const RunFolder& run) {
  std::error_code ec;
  const auto size = fs::file_size(run.metrics(), ec);
  return !ec && size > 0;
}

// Refuses to begin at model.path in a folder where more was done than that.
// A run that died before its first checkpoint begins anew, and it is said.
absl::Status CheckNothingLost(const RunFolder& run, const ForkOrigin& origin) {
  std::string found;
  bool work = false;
  if (fs::exists(run.ledger())) {
    ATOD_ASSIGN_OR_RETURN(const std::optional<uint32_t> saved,
                          LastSaved(run.ledger()));
    if (saved.has_value())
      found = absl::StrCat("none, but the run had one of step ", *saved);
    ATOD_ASSIGN_OR_RETURN(work, HasWork(run.ledger()));
  } else if (HasRecords(run) && origin.run.empty()) {
    found = "none, and no ledger.db, but recorded steps";
  }
  if (!found.empty()) {
    return BadInput({.file = run.checkpoints(),
                     .field = "checkpoint",
                     .found = found,
                     .expected = "it back in its place, --resume with another "
                                 "folder of it, or another name to start from "
                                 "the beginning"});
  }
  if (work) {
    LogWarning(absl::StrCat(run.dir(),
                            ": the run ended before its first checkpoint: "
                            "starting from the beginning, without the steps "
                            "recorded so far"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckFolder(const RunFolder& run, const std::string& resume) {
  if (!resume.empty()) return absl::OkStatus();
  std::string found;
  if (fs::exists(run.ledger())) {
    // A start that was refused before it gave out work left an empty one.
    ATOD_ASSIGN_OR_RETURN(const bool used, HasWork(run.ledger()));
    if (used) found = "ledger.db";
  }
  if (HasRecords(run)) found = "metrics.jsonl";
  ATOD_ASSIGN_OR_RETURN(const std::string checkpoint,
                        FindCheckpoint(run, "latest"));
  if (!checkpoint.empty()) found = "checkpoints";
  return found.empty()
             ? absl::OkStatus()
             : BadInput(
                   {.file = run.dir(),
                    .field = "name",
                    .found = absl::StrCat("a run (", found, ")"),
                    .expected = "a new name, or --resume latest to go on"});
}

absl::StatusOr<RunStart> FindStart(const RunFolder& run,
                                   const std::string& runs_dir,
                                   const StartFlags& flags) {
  RunStart start;
  ATOD_ASSIGN_OR_RETURN(start.origin, ReadForkOrigin(run));
  if (!flags.resume.empty()) {
    ATOD_ASSIGN_OR_RETURN(start.from, OpenCheckpoint(run, flags.resume));
  }
  const bool fresh = start.from.dir.empty();
  if (fresh) ATOD_RETURN_IF_ERROR(CheckNothingLost(run, start.origin));
  if (flags.fork.empty()) {
    if (fresh && !start.origin.run.empty()) {
      return BadInput(
          {.file = run.dir(),
           .field = "checkpoint",
           .found = "none",
           .expected = absl::StrCat("the copy of ", start.origin.ToString(),
                                    ", where it begins: `", "--fork ",
                                    start.origin.ToString(),
                                    " --resume latest` makes ", "it")});
    }
    return start;
  }
  ATOD_ASSIGN_OR_RETURN(const ForkOrigin asked,
                        ParseFork(flags.fork, runs_dir));
  if (fresh) {
    start.origin = asked;
    if (flags.dry_run) {
      ATOD_ASSIGN_OR_RETURN(start.from, OpenFork(asked));
    } else {
      ATOD_RETURN_IF_ERROR(ForkRun(asked, run));
      ATOD_ASSIGN_OR_RETURN(start.from, OpenCheckpoint(run, "latest"));
    }
  } else if (asked != start.origin) {
    return BadInput(
        {.file = run.dir(),
         .field = "--fork",
         .found = asked.ToString(),
         .expected = start.origin.run.empty()
                         ? "no fork: the run goes on"
                         : start.origin.ToString() + ", where the run began"});
  }
  return start;
}

absl::Status TellChanges(const FoundCheckpoint& from,
                         const v1::RunConfig& config) {
  if (from.dir.empty()) return absl::OkStatus();
  const RunCheckpoint& checkpoint = from.state;
  if (config.steps() < checkpoint.step) {
    return BadInput(
        {.file = "configuration",
         .field = "steps",
         .found = absl::StrCat(config.steps()),
         .expected = absl::StrCat("at least ", checkpoint.step,
                                  ", the steps done in ", from.dir)});
  }
  if (checkpoint.config_hash == HashHex(config::ResolvedYaml(config)))
    return absl::OkStatus();
  absl::StatusOr<config::LoadedConfig> before =
      config::LoadRunConfig({CheckpointFolder(from.dir).config()});
  if (!before.ok()) {
    LogWarning(
        absl::StrCat("the configuration is not that of ", from.dir,
                     ", which cannot be read: ", before.status().message()));
    return absl::OkStatus();
  }
  ATOD_ASSIGN_OR_RETURN(
      const std::vector<std::string> changes,
      DescribeChanges(before->config, config, checkpoint.step));
  for (const std::string& change : changes) LogWarning(change);
  return absl::OkStatus();
}

absl::Status CheckStart(const v1::RunConfig& config, const std::string& resume,
                        const std::string& fork) {
  const RunFolder run(config.runs_dir(), config.name());
  ATOD_RETURN_IF_ERROR(CheckFolder(run, resume));
  ATOD_RETURN_IF_ERROR(RequireLocalDisk(run.dir()));
  ATOD_ASSIGN_OR_RETURN(
      const RunStart start,
      FindStart(run, config.runs_dir(),
                {.resume = resume, .fork = fork, .dry_run = true}));
  return TellChanges(start.from, config);
}

}  // namespace atod::learner
