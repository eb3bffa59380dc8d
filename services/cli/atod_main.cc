#include <cstdio>
#include <string>

#include "common/base/log.h"
#include "services/cli/advantages_command.h"
#include "services/cli/command.h"
#include "services/cli/env_commands.h"
#include "services/cli/eval_command.h"
#include "services/cli/games_commands.h"
#include "services/cli/model_commands.h"
#include "services/cli/run_commands.h"
#include "services/cli/text_commands.h"
#include "services/cli/up_commands.h"
#include "services/cli/verify_model_command.h"

namespace atod::cli {
namespace {

int exit_status = 0;

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
    std::string line(result.status().message());
    for (char& c : line)
      if (c == '\n') c = ' ';
    std::fprintf(stderr, "error: %s\n", line.c_str());
    exit_status = 2;
  });
  return sub;
}

}  // namespace atod::cli

int main(int argc, char** argv) {
  atod::InitLogging("atod", "warn");
  CLI::App app{
      "ATOD: train small language-model agents by annealed on-policy "
      "distillation and reinforcement learning"};
  app.require_subcommand(1);
  atod::cli::AddUpCommands(app);
  atod::cli::AddEvalCommand(app);
  atod::cli::AddRunCommands(app);
  atod::cli::AddGamesCommands(app);
  atod::cli::AddModelCommands(app);
  atod::cli::AddEnvCommands(app);
  atod::cli::AddTextCommands(app);
  atod::cli::AddVerifyModelCommand(app);
  atod::cli::AddAdvantagesCommand(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    std::fprintf(stderr, "error: %s (atod --help lists what there is)\n",
                 e.what());
    return 2;
  }
  return atod::cli::exit_status;
}
