#include "services/cli/env_commands.h"

#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "services/cli/command.h"
#include "services/cli/golden_replay.h"
#include "services/envs/alfworld/projection.h"

namespace atod::cli {
namespace {

// "WebShop" and "Search" are not built yet.
absl::Status CheckEnv(const char* command, const std::string& env) {
  if (env == "alfworld" || env == "textworld") return absl::OkStatus();
  return BadInput({command, "--env", 0, absl::StrCat("'", env, "'"),
                   "alfworld or textworld"});
}

struct ReplayFlags {
  std::vector<std::string> goldens;
  std::string env = "alfworld";
};

absl::StatusOr<int> RunReplay(const ReplayFlags& flags) {
  ATOD_RETURN_IF_ERROR(CheckEnv("replay-env", flags.env));
  ReplayCounts counts;
  for (const std::string& golden : flags.goldens)
    ATOD_RETURN_IF_ERROR(ReplayGolden(golden, StartLocally, counts));
  std::fputs(counts.first_difference.c_str(), stdout);
  std::printf("replay: %d episodes, %d steps, %d differences\n",
              counts.episodes, counts.steps, counts.differences);
  return counts.differences > 0 ? 1 : 0;
}

struct ProjectFlags {
  std::string env = "alfworld";
  std::string prompt_set = "paper";
};

absl::StatusOr<int> RunProject(const ProjectFlags& flags) {
  ATOD_RETURN_IF_ERROR(CheckEnv("project", flags.env));
  std::string line;
  for (int number = 1; std::getline(std::cin, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    absl::StatusOr<nlohmann::json> json = ParseJson(line, "stdin");
    if (!json.ok() || !json->is_object() || !json->contains("text") ||
        !(*json)["text"].is_string())
      return BadInput({"stdin", "text", number,
                       json.ok() ? JsonPreview(*json) : "broken JSON",
                       R"({"text": MODEL OUTPUT})"});
    const envs::Projected projected = envs::Project(
        flags.prompt_set, (*json)["text"].get_ref<const std::string&>());
    const nlohmann::json out = {{"action", projected.action},
                                {"valid", projected.valid}};
    std::puts(out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
                  .c_str());
  }
  return 0;
}

}  // namespace

void AddEnvCommands(CLI::App& app) {
  auto replay = std::make_shared<ReplayFlags>();
  CLI::App* replay_env =
      AddCommand(app, "replay-env",
                 "Replay recorded episodes and compare every observation",
                 [replay] { return RunReplay(*replay); });
  replay_env
      ->add_option("--golden", replay->goldens,
                   "recorded episodes; the game file lies beside each")
      ->required();
  replay_env->add_option("--env", replay->env, "alfworld or textworld");

  auto project = std::make_shared<ProjectFlags>();
  CLI::App* project_command =
      AddCommand(app, "project",
                 "Show the action that model texts mean (JSON lines on stdin)",
                 [project] { return RunProject(*project); });
  project_command->add_option("--env", project->env, "alfworld or textworld");
  project_command
      ->add_option("--prompt-set", project->prompt_set,
                   "which response format applies")
      ->check(CLI::IsMember({"paper", "released", "compact"}));
}

}  // namespace atod::cli
