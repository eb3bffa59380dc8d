#include "services/cli/env_commands.h"

#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/rpc/channel.h"
#include "services/cli/command.h"
#include "services/cli/json_lines.h"
#include "services/envs/alfworld/golden_replay.h"
#include "services/envs/alfworld/projection.h"
#include "services/envs/env_client.h"

namespace atod::cli {
namespace {

constexpr absl::Duration kServerTimeout = absl::Seconds(30);

// "WebShop" and "Search" are not built yet.
absl::Status CheckEnv(const char* command, const std::string& env) {
  if (env == "alfworld" || env == "textworld") return absl::OkStatus();
  return BadInput({command, "--env", 0, absl::StrCat("'", env, "'"),
                   "alfworld or textworld"});
}

struct ReplayFlags {
  std::vector<std::string> goldens;
  std::string env = "alfworld";
  std::string server;
};

// The answer of a call that takes a callback.
template <typename T>
class Answer {
 public:
  std::function<void(absl::StatusOr<T>)> Callback() {
    return [this](absl::StatusOr<T> value) {
      value_ = std::move(value);
      done_.Notify();
    };
  }
  absl::StatusOr<T> Wait() {
    done_.WaitForNotification();
    return std::move(value_);
  }

 private:
  absl::StatusOr<T> value_ = absl::UnknownError("no answer");
  absl::Notification done_;
};

// Starts episodes at a server. The task is named as the game's file, in
// whichever split has it.
absl::StatusOr<envs::ReplayEpisode> StartRemotely(envs::EnvClient& client,
                                                  const envs::GoldenGame& game,
                                                  uint32_t max_turns) {
  ATOD_ASSIGN_OR_RETURN(const envs::EnvDescription description,
                        client.Describe(game.env));
  const std::string task = std::filesystem::path(game.path).stem().string();
  absl::Status status = absl::NotFoundError("no split");
  for (const envs::SplitInfo& split : description.splits) {
    Answer<envs::ResetResult> reset;
    envs::ResetRequest request;
    request.env = game.env;
    request.options.split = split.name;
    request.options.task_id = task;
    request.options.max_turns = max_turns;
    client.Reset(request, reset.Callback());
    absl::StatusOr<envs::ResetResult> result = reset.Wait();
    if (!result.ok()) {
      status = result.status();
      if (absl::IsNotFound(status)) continue;
      return status;
    }
    std::shared_ptr<const std::string> id(new std::string(result->episode_id),
                                          [&client](const std::string* p) {
                                            client.Close(*p);
                                            delete p;
                                          });
    return envs::ReplayEpisode{
        result->first,
        [&client, id](uint32_t turn, const std::string& action)
            -> absl::StatusOr<envs::Observation> {
          Answer<envs::StepResult> step;
          client.StepAction(*id, turn, action, step.Callback());
          ATOD_ASSIGN_OR_RETURN(const envs::StepResult played, step.Wait());
          return played.observation;
        }};
  }
  return BadInput({game.path, "task", 0,
                   absl::StrCat("none named '", task, "' at the server (",
                                status.message(), ")"),
                   "the same game in the server's data folder"});
}

absl::StatusOr<int> RunReplay(const ReplayFlags& flags) {
  ATOD_RETURN_IF_ERROR(CheckEnv("replay-env", flags.env));
  envs::StartEpisode start = envs::StartLocally;
  std::unique_ptr<envs::EnvClient> client;
  if (!flags.server.empty()) {
    ATOD_ASSIGN_OR_RETURN(auto channel,
                          rpc::Connect(flags.server, {}, "--server"));
    client = std::make_unique<envs::EnvClient>(
        std::vector<envs::EnvServer>{{flags.server, std::move(channel)}},
        kServerTimeout);
    start = [&client](const envs::GoldenGame& game, uint32_t max_turns) {
      return StartRemotely(*client, game, max_turns);
    };
  }
  envs::ReplayCounts counts;
  for (const std::string& golden : flags.goldens)
    ATOD_RETURN_IF_ERROR(envs::ReplayGolden(golden, start, counts));
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
  ATOD_RETURN_IF_ERROR(ForEachLine(
      std::cin, "stdin", [&](const nlohmann::json& row) -> absl::Status {
        if (!row.is_object() || !row.contains("text") ||
            !row["text"].is_string()) {
          return BadInput({.field = "text",
                           .found = JsonPreview(row),
                           .expected = R"({"text": MODEL OUTPUT})"});
        }
        const envs::Projected projected = envs::Project(
            flags.prompt_set, row["text"].get_ref<const std::string&>());
        PrintLine({{"action", projected.action}, {"valid", projected.valid}});
        return absl::OkStatus();
      }));
  return 0;
}

}  // namespace

void AddEnvCommands(Command app) {
  auto replay = std::make_shared<ReplayFlags>();
  Command replay_env = app.Add(
      "replay-env", "Replay recorded episodes and compare every observation",
      [replay] { return RunReplay(*replay); });
  replay_env
      .Arg("--golden", replay->goldens,
           "recorded episodes; the game file lies beside each")
      .Required();
  replay_env.Arg("--env", replay->env, "alfworld or textworld");
  replay_env.Arg("--server", replay->server,
                 "HOST:PORT of an atod-envs whose data folder holds the games");

  auto project = std::make_shared<ProjectFlags>();
  Command project_command = app.Add(
      "project", "Show the action that model texts mean (JSON lines on stdin)",
      [project] { return RunProject(*project); });
  project_command.Arg("--env", project->env, "alfworld or textworld");
  project_command
      .Arg("--prompt-set", project->prompt_set, "which response format applies")
      .OneOf({"paper", "released", "compact"});
}

}  // namespace atod::cli
