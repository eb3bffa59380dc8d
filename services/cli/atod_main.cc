#include <cstdio>
#include <string>

#include "common/base/edit_distance.h"
#include "common/base/log.h"
#include "common/base/output.h"
#include "common/base/printable.h"
#include "services/cli/advantages_command.h"
#include "services/cli/collect_command.h"
#include "services/cli/command.h"
#include "services/cli/diagnose_command.h"
#include "services/cli/env_commands.h"
#include "services/cli/eval_command.h"
#include "services/cli/games_commands.h"
#include "services/cli/model_commands.h"
#include "services/cli/replay_command.h"
#include "services/cli/report_command.h"
#include "services/cli/run_commands.h"
#include "services/cli/text_commands.h"
#include "services/cli/up_commands.h"
#include "services/cli/verify_model_command.h"

namespace atod::cli {
namespace {

int exit_status = 0;

// What is wrong with the command line: the first word that names no command,
// or what CLI11 says.
std::string Explain(CLI::App& app, int argc, char** argv,
                    const CLI::ParseError& error) {
  CLI::App* group = &app;
  for (int i = 1; i < argc && argv[i][0] != '-'; ++i) {
    CLI::App* called = nullptr;
    std::string nearest;
    for (CLI::App* sub :
         group->get_subcommands([](CLI::App*) { return true; })) {
      const std::string& name = sub->get_name();
      if (name == argv[i]) called = sub;
      if (nearest.empty() ||
          EditDistance(name, argv[i]) < EditDistance(nearest, argv[i]))
        nearest = name;
    }
    if (nearest.empty()) break;  // it has no commands of its own
    if (called == nullptr) {
      return group->get_name() + ": command: found '" + argv[i] +
             "', expected a command (nearest: " + nearest + ")";
    }
    group = called;
  }
  return error.what();
}

int Failed(const absl::Status& status) {
  std::fflush(stdout);  // in a common log the error comes last
  std::fprintf(stderr, "error: %s\n",
               OneLine(std::string(status.message())).c_str());
  return 2;
}

// The exit status once all output is where it belongs.
int Finished(int status) {
  const absl::Status output = FinishOutput();
  return output.ok() ? status : Failed(output);
}

}  // namespace

CLI::App* AddCommand(CLI::App& app, const std::string& name,
                     const std::string& summary, Run run) {
  CLI::App* sub = app.add_subcommand(name, summary);
  sub->callback([sub, run] {
    // A group such as `games` also runs for its own sub-commands.
    if (!sub->get_subcommands().empty()) return;
    const absl::StatusOr<int> result = run();
    if (result.ok()) {
      exit_status = *result;
      return;
    }
    exit_status = Failed(result.status());
  });
  return sub;
}

CLI::Validator WholeNumber(uint64_t low, uint64_t high) {
  return CLI::Validator(
      [=](std::string& text) {
        uint64_t value;
        if (absl::SimpleAtoi(text, &value) && low <= value && value <= high)
          return std::string();
        return absl::StrCat("found ", text, ", expected a whole number from ",
                            low, " to ", high);
      },
      "");
}

CLI::Validator Number(double low, double high) {
  return CLI::Validator(
      [=](std::string& text) {
        double value;
        if (absl::SimpleAtod(text, &value) && low <= value && value <= high)
          return std::string();
        return absl::StrCat("found ", text, ", expected a number from ", low,
                            " to ", high);
      },
      "");
}

void AddConfigFlags(CLI::App& app, std::vector<std::string>& files,
                    std::vector<std::string>& sets) {
  app.add_option("--config", files,
                 "YAML file of a run; a further one overrides keys of those "
                 "before it")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_option("--set", sets, "goes over the files; may be given again")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

}  // namespace atod::cli

int main(int argc, char** argv) {
  atod::InitLogging("atod", "warn");
  CLI::App app{
      "ATOD: train small language-model agents by annealed on-policy "
      "distillation and reinforcement learning",
      "atod"};
  app.require_subcommand(1);
  atod::cli::AddUpCommands(app);
  atod::cli::AddEvalCommand(app);
  atod::cli::AddCollectCommand(app);
  atod::cli::AddDiagnoseCommand(app);
  atod::cli::AddReportCommand(app);
  atod::cli::AddRunCommands(app);
  atod::cli::AddReplayCommand(app);
  atod::cli::AddGamesCommands(app);
  atod::cli::AddModelCommands(app);
  atod::cli::AddEnvCommands(app);
  atod::cli::AddTextCommands(app);
  atod::cli::AddVerifyModelCommand(app);
  atod::cli::AddAdvantagesCommand(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return atod::cli::Finished(app.exit(e));
    std::fprintf(stderr, "error: %s (atod --help lists what there is)\n",
                 atod::cli::Explain(app, argc, argv, e).c_str());
    return 2;
  }
  return atod::cli::Finished(atod::cli::exit_status);
}
