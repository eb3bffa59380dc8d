#include "services/cli/up_commands.h"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/model/peak_memory.h"
#include "services/cli/box.h"
#include "services/cli/command.h"
#include "services/cli/plan.h"
#include "services/cli/preflight.h"
#include "services/learner/run_start.h"

namespace atod::cli {
namespace {

struct UpFlags {
  std::vector<std::string> config;
  std::vector<std::string> sets;
  bool print_config = false;
  bool dry_run = false;
  std::string resume;  // as the learner takes it
  std::string fork;
};

absl::StatusOr<int> Up(const UpFlags& flags, bool learner_only) {
  ATOD_ASSIGN_OR_RETURN(const config::LoadedConfig loaded,
                        config::LoadRunConfig(flags.config, flags.sets));
  if (flags.print_config) {
    std::fputs(config::PrintConfig(loaded).c_str(), stdout);
    return 0;
  }
  // The plan comes first: it needs no games, and tells what is missing.
  if (flags.dry_run) std::fputs(Plan(loaded.config).c_str(), stdout);
  if (const int64_t gpu =
          loaded.config.device() == "cuda" ? model::GpuBytes() : 0;
      gpu > 0 && !learner_only)
    ATOD_RETURN_IF_ERROR(CheckGpuMemory(PlanMemory(loaded.config), gpu));
  ATOD_RETURN_IF_ERROR(CheckInputs(loaded));
  ATOD_RETURN_IF_ERROR(CheckPorts(loaded, learner_only));
  ATOD_RETURN_IF_ERROR(OpenInputs(loaded, flags.dry_run));
  if (flags.dry_run) {
    // The learner itself begins with this.
    ATOD_RETURN_IF_ERROR(
        learner::CheckStart(loaded.config, flags.resume, flags.fork));
    return 0;
  }
  return RunBox(loaded.config, {.files = flags.config,
                                .sets = flags.sets,
                                .resume = flags.resume,
                                .fork = flags.fork,
                                .learner_only = learner_only});
}

void Add(Command app, const std::string& name, const std::string& summary,
         bool learner_only) {
  auto flags = std::make_shared<UpFlags>();
  Command sub =
      app.Add(name, summary, [=] { return Up(*flags, learner_only); });
  sub.ConfigFlags(flags->config, flags->sets);
  sub.Flag("--print-config", flags->print_config,
           "print every value and where it came from, then end");
  sub.Flag("--dry-run", flags->dry_run,
           "check the inputs and print what would happen, then end");
  sub.Arg("--resume", flags->resume,
          "go on from the newest checkpoint of the run, or from the "
          "checkpoint in a folder")
      .Type("[latest|DIR]")
      .OrAlone("latest");
  sub.Arg("--fork", flags->fork,
          "a new run that starts where another one stood at its "
          "checkpoint of a step")
      .Type("RUN@STEP");
}

}  // namespace

void AddUpCommands(Command app) {
  Add(app, "up", "run everything on this machine: services, training, progress",
      false);
  Add(app, "train", "run the learner only; the other services are elsewhere",
      true);
}

}  // namespace atod::cli
