#include "services/cli/eval_command.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "report/statistics.h"
#include "services/cli/command.h"
#include "services/cli/panel_flags.h"
#include "services/envs/games/policies.h"
#include "services/rollout/evaluate.h"

namespace atod::cli {
namespace {

struct EvalFlags {
  PanelFlags panel;
  std::string policy;
  std::string label;
};

using Results = std::vector<rollout::EvalResult>;

absl::StatusOr<Results> PlayScripted(const rollout::Panel& panel,
                                     const EvalFlags& flags) {
  ATOD_RETURN_IF_ERROR(games::MakePolicy(flags.policy, 0).status());
  const auto make = [&flags](size_t i) -> rollout::Player {
    std::shared_ptr<games::Policy> policy = *games::MakePolicy(
        flags.policy, rollout::TaskSeed(flags.panel.choice.seed, i));
    return
        [policy](const envs::Observation& seen) { return policy->Act(seen); };
  };
  return rollout::EvaluatePlayers(*panel.env, make, panel.tasks, panel.options);
}

absl::StatusOr<Results> PlayModel(const rollout::Panel& panel) {
  ATOD_ASSIGN_OR_RETURN(const rollout::PanelPlayer player,
                        rollout::LoadPlayer(panel));
  return rollout::EvaluateModel(*player.engine, *player.envs, *player.tokenizer,
                                panel.tasks, panel.options);
}

absl::Status WriteResults(const Results& results, const std::string& path) {
  std::string out;
  for (const rollout::EvalResult& r : results) {
    nlohmann::json line{{"task_id", r.task_id},
                        {"category", r.category},
                        {"success", r.success},
                        {"length", r.length},
                        {"reward", r.reward}};
    if (!r.error.empty())
      line["error"] = absl::StrCat(r.error, ": ", r.error_message);
    absl::StrAppend(&out, line.dump(), "\n");
  }
  return WriteFileAtomic(path, out);
}

absl::StatusOr<int> Eval(EvalFlags& flags) {
  if (flags.panel.model.empty() == flags.policy.empty())
    return BadInput({"eval", "--model, --policy", 0,
                     flags.panel.model.empty() ? "neither" : "both",
                     "one of them"});
  ATOD_ASSIGN_OR_RETURN(const rollout::Panel panel, OpenPanel(flags.panel));
  ATOD_ASSIGN_OR_RETURN(const Results results, flags.panel.model.empty()
                                                   ? PlayScripted(panel, flags)
                                                   : PlayModel(panel));
  double wins = 0, turns = 0;
  std::map<std::string, std::pair<int, int>> by_type;  // wins, games
  int played = 0;
  for (const rollout::EvalResult& r : results) {
    if (!r.error.empty()) continue;  // no loss
    ++played;
    wins += r.success;
    turns += r.length;
    by_type[r.category].first += r.success;
    by_type[r.category].second += 1;
  }
  const double n = std::max(played, 1);
  const report::Estimate rate = report::Wilson(wins, n);
  std::string line = absl::StrFormat(
      "%s %s: success %.1f %% [%.1f, %.1f] of %d games, %.1f turns",
      flags.label.empty() ? flags.panel.model + flags.policy : flags.label,
      panel.options.split, 100 * wins / n, 100 * rate.low, 100 * rate.high,
      played, turns / n);
  for (const auto& [type, count] : by_type)
    absl::StrAppendFormat(&line, "  %s %d/%d", type, count.first, count.second);
  const bool enough = FewErrors(results, panel);
  if (played > 0) std::puts(line.c_str());
  if (!flags.panel.out.empty())
    ATOD_RETURN_IF_ERROR(WriteResults(results, flags.panel.out));
  return enough ? 0 : 1;
}

}  // namespace

void AddEvalCommand(Command app) {
  auto flags = std::make_shared<EvalFlags>();
  Command sub =
      app.Add("eval", "play a fixed list of tasks and count successes",
              [=] { return Eval(*flags); });
  sub.Arg("--model", flags->panel.model, "folder of the model that plays");
  sub.Arg("--policy", flags->policy, "what plays without a model")
      .OneOf({"random", "planner"});
  AddPanelFlags(sub, flags->panel);
  sub.Arg("--label", flags->label, "name in the printed line");
  sub.Arg("--out", flags->panel.out, "JSONL with one line a game");
}

}  // namespace atod::cli
