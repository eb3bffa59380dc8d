#include "services/cli/stopped_run.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/disk.h"
#include "common/run/step_line.h"
#include "services/cli/log_follower.h"
#include "services/cli/progress.h"
#include "services/learner/run_checkpoint.h"

namespace atod::cli {
namespace {

std::optional<uint32_t> LastStep(const RunFolder& run) {
  std::optional<uint32_t> last;
  std::ifstream in(run.metrics());
  for (std::string line; std::getline(in, line);)
    if (const auto step = ReadStepLine(line)) last = step->step;
  return last;
}

// When the learner last wrote to a file.
absl::Time LastWritten(const RunFolder& run) {
  absl::Time last = absl::InfinitePast();
  for (const std::string& path : {run.config(), run.metrics(), run.ledger(),
                                  run.ledger() + "-wal", run.log("learner")}) {
    struct stat file;
    if (stat(path.c_str(), &file) == 0)
      last = std::max(last, absl::FromTimeT(file.st_mtime));
  }
  return last;
}

std::string LastError(const RunFolder& run) {
  std::string error;
  LogFollower log(run.log("learner"), LogFollower::From::kStart);
  for (LogFollower::Said& said : log.Poll())
    if (said.error) error = std::move(said.text);
  return error;
}

}  // namespace

bool IsLearnerAtWork(const RunFolder& run) {
  return absl::IsFailedPrecondition(FolderLock::Take(run.dir()).status());
}

std::string DescribeStoppedRun(const RunFolder& run, uint32_t steps,
                               absl::Time now) {
  const std::optional<uint32_t> last = LastStep(run);
  std::string out =
      last.has_value()
          ? absl::StrCat("step ", *last, " of ", steps, " is the last recorded")
          : "no step is recorded";
  if (const absl::Time written = LastWritten(run);
      written != absl::InfinitePast())
    absl::StrAppend(&out, "; nothing written since ",
                    absl::FormatTime("%Y-%m-%d %H:%M:%S %Z", written,
                                     absl::LocalTimeZone()),
                    " (", ShortDuration(now - written), " ago)");
  out += "\n";
  if (last.has_value() && *last >= steps)
    return absl::StrCat(out, "the run is done; `atod report ", run.dir(),
                        "` shows it\n");
  if (const std::string error = LastError(run); !error.empty())
    absl::StrAppend(&out, "its learner's last error: ", error, "\n");
  const auto checkpoint = learner::FindCheckpoint(run, "latest");
  if (checkpoint.ok() && !checkpoint->empty())
    return absl::StrCat(out, "`atod up --config ", run.config(),
                        " --resume` goes on from ", *checkpoint, "\n");
  return absl::StrCat(out, "there is no checkpoint to go on from: `atod up",
                      " --config ", run.config(),
                      " --set name=NEW` begins again\n");
}

}  // namespace atod::cli
