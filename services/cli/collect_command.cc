#include "services/cli/collect_command.h"

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/error_share.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "services/cli/command.h"
#include "services/cli/panel_flags.h"
#include "services/rollout/evaluate.h"

namespace atod::cli {
namespace {

struct CollectFlags {
  PanelFlags panel;
  uint32_t attempts = 10;
};

std::string ContentHash(const rollout::Panel& panel) {
  for (const envs::SplitInfo& split : panel.env->description().splits)
    if (split.name == panel.options.split) return split.content_hash;
  return "";
}

// Attempt by attempt, each on the games that no earlier one has solved.
absl::StatusOr<int> Collect(CollectFlags& flags) {
  ATOD_ASSIGN_OR_RETURN(rollout::Panel panel, OpenPanel(flags.panel));
  ATOD_ASSIGN_OR_RETURN(const rollout::PanelPlayer player,
                        rollout::LoadPlayer(panel));
  const std::string content_hash = ContentHash(panel);
  const size_t games = panel.tasks.size();
  std::string out;
  size_t solved = 0;
  // An error will not be another one next time: these are not played again.
  std::vector<rollout::EvalResult> failed;
  for (uint32_t attempt = 0; attempt < flags.attempts && !panel.tasks.empty();
       ++attempt) {
    panel.options.step = attempt;
    ATOD_ASSIGN_OR_RETURN(
        const std::vector<v1::Trajectory> played,
        rollout::PlayTasks(*player.engine, *player.envs, *player.tokenizer,
                           panel.tasks, panel.options));
    std::vector<rollout::EvalTask> open;
    for (size_t i = 0; i < played.size(); ++i) {
      if (played[i].outcome().has_error()) {
        failed.push_back(rollout::ResultOf(played[i]));
        continue;
      }
      if (!played[i].outcome().success()) {
        open.push_back(panel.tasks[i]);
        continue;
      }
      ++solved;
      nlohmann::ordered_json line = {{"env", panel.options.env},
                                     {"split", panel.options.split},
                                     {"content_hash", content_hash},
                                     {"task_id", panel.tasks[i].task_id},
                                     {"actions", nlohmann::json::array()}};
      for (const v1::Turn& turn : played[i].turns())
        line["actions"].push_back(turn.executed_action());
      absl::StrAppend(&out, line.dump(), "\n");
    }
    panel.tasks = std::move(open);
    // What was collected before stays until there is something new.
    if (solved > 0) ATOD_RETURN_IF_ERROR(WriteFileAtomic(flags.panel.out, out));
    if (TooManyErrors(failed.size(), games,
                      panel.config.env().max_error_share()))
      break;
  }
  failed.resize(games);  // the others had no error
  if (!FewErrors(failed, panel)) return 1;
  if (solved == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        flags.panel.model, ": found no solved game of ", games, " in ",
        flags.attempts, " attempts, expected at least one"));
  }
  std::puts(absl::StrFormat("%s: %d of %d games of %s solved in %d attempts",
                            flags.panel.out, solved, games, panel.options.split,
                            flags.attempts)
                .c_str());
  return 0;
}

}  // namespace

void AddCollectCommand(Command app) {
  auto flags = std::make_shared<CollectFlags>();
  flags->panel.split = "train";
  flags->panel.choice.count = 1'000'000;
  flags->panel.temperature = 1;
  flags->panel.choice.train_split = flags->panel.choice.train_temperature =
      true;
  Command sub =
      app.Add("collect", "play a split and keep the actions of solved games",
              [=] { return Collect(*flags); });
  sub.Arg("--model", flags->panel.model, "folder of the model that plays")
      .Required();
  sub.Arg("--out", flags->panel.out, "JSONL with one line a solved game")
      .Required();
  sub.Arg("--attempts", flags->attempts, "tries a game")
      .Range(1, 1000)
      .ShowDefault();
  AddPanelFlags(sub, flags->panel);
}

}  // namespace atod::cli
