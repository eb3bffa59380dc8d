#include "common/base/log.h"
#include "services/cli/advantages_command.h"
#include "services/cli/bench_command.h"
#include "services/cli/chat_command.h"
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

namespace {

void AddCommands(atod::cli::Command app) {
  atod::cli::AddUpCommands(app);
  atod::cli::AddEvalCommand(app);
  atod::cli::AddCollectCommand(app);
  atod::cli::AddDiagnoseCommand(app);
  atod::cli::AddReportCommand(app);
  atod::cli::AddRunCommands(app);
  atod::cli::AddReplayCommand(app);
  atod::cli::AddGamesCommands(app);
  atod::cli::AddModelCommands(app);
  atod::cli::AddChatCommand(app);
  atod::cli::AddBenchCommands(app);
  atod::cli::AddEnvCommands(app);
  atod::cli::AddTextCommands(app);
  atod::cli::AddVerifyModelCommand(app);
  atod::cli::AddAdvantagesCommand(app);
}

}  // namespace

int main(int argc, char** argv) {
  atod::InitLogging("atod", "warn");
  return atod::cli::RunCommandLine(
      argc, argv,
      "ATOD: train small language-model agents by annealed on-policy "
      "distillation and reinforcement learning",
      AddCommands);
}
