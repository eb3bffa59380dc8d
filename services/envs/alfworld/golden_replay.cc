#include "services/envs/alfworld/golden_replay.h"

#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "services/envs/alfworld/alfworld_environment.h"

namespace atod::envs {
namespace {

using nlohmann::json;

absl::Status Bad(const std::string& field, const json* found,
                 const std::string& expected) {
  return BadInput({"", field, 0,
                   found == nullptr ? "nothing" : JsonPreview(*found),
                   expected});
}

// The value at `key`, when it is of the wanted JSON type.
template <typename T>
absl::StatusOr<T> Get(const json& object, const std::string& key,
                      const std::string& expected) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || it == object.end())
    return Bad(key, nullptr, expected);
  try {
    return it->get<T>();
  } catch (const json::exception&) {
    return Bad(key, &*it, expected);
  }
}

// Adds to `out` what differs, one field a line pair.
template <typename T>
void Compare(const char* field, const T& recorded, const T& replayed,
             std::string& out) {
  if (recorded == replayed) return;
  absl::StrAppend(
      &out, "  ", field, "\n    recorded ", json(recorded).dump(),
      "\n    replayed ",
      json(replayed).dump(-1, ' ', false, json::error_handler_t::replace),
      "\n");
}

absl::StatusOr<std::string> Differences(const json& record, bool is_step,
                                        const Observation& now) {
  std::string out;
  ATOD_ASSIGN_OR_RETURN(const auto feedback,
                        Get<std::string>(record, "feedback", "a string"));
  ATOD_ASSIGN_OR_RETURN(
      const auto admissible,
      Get<std::vector<std::string>>(record, "admissible_commands", "strings"));
  ATOD_ASSIGN_OR_RETURN(const bool won, Get<bool>(record, "won", "a boolean"));
  Compare("feedback", feedback, now.text, out);
  Compare("admissible_commands", admissible, now.admissible, out);
  Compare("won", won, now.success, out);
  if (is_step) {
    ATOD_ASSIGN_OR_RETURN(const double score,
                          Get<double>(record, "score", "a number"));
    ATOD_ASSIGN_OR_RETURN(const bool done,
                          Get<bool>(record, "done", "a boolean"));
    Compare("score", score, static_cast<double>(now.task_score), out);
    Compare("done", done, now.done, out);
  }
  return out;
}

absl::Status Replay(const json& golden, const std::string& path,
                    const StartEpisode& start, ReplayCounts& counts) {
  ATOD_ASSIGN_OR_RETURN(const auto name,
                        Get<std::string>(golden, "game", "a file name"));
  ATOD_ASSIGN_OR_RETURN(const bool demangled,
                        Get<bool>(golden, "demangled", "a boolean"));
  GoldenGame game;
  game.env = demangled ? "alfworld" : "textworld";
  game.path = (std::filesystem::path(path).parent_path() / name).string();
  ATOD_ASSIGN_OR_RETURN(const auto episodes,
                        Get<std::vector<json>>(golden, "episodes", "a list"));
  for (const json& episode : episodes) {
    ATOD_ASSIGN_OR_RETURN(const auto label,
                          Get<std::string>(episode, "label", "a string"));
    ATOD_ASSIGN_OR_RETURN(const auto initial,
                          Get<json>(episode, "initial", "an object"));
    ATOD_ASSIGN_OR_RETURN(const auto steps,
                          Get<std::vector<json>>(episode, "steps", "a list"));
    // Recorded without a turn limit.
    ATOD_ASSIGN_OR_RETURN(ReplayEpisode playing,
                          start(game, static_cast<uint32_t>(steps.size()) + 1));
    auto count = [&](const std::string& where, const std::string& what) {
      if (what.empty()) return;
      if (counts.differences++ == 0)
        counts.first_difference =
            absl::StrCat(path, ": episode '", label, "', ", where, "\n", what);
    };
    ++counts.episodes;
    ATOD_ASSIGN_OR_RETURN(std::string what,
                          Differences(initial, false, playing.first));
    count("start", what);
    for (size_t i = 0; i < steps.size(); ++i) {
      ATOD_ASSIGN_OR_RETURN(const auto command,
                            Get<std::string>(steps[i], "command", "a string"));
      ATOD_ASSIGN_OR_RETURN(const Observation now,
                            playing.play(static_cast<uint32_t>(i), command));
      ATOD_ASSIGN_OR_RETURN(what, Differences(steps[i], true, now));
      ++counts.steps;
      count(absl::StrCat("step ", i + 1, ", command ", json(command).dump()),
            what);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReplayGolden(const std::string& path, const StartEpisode& start,
                          ReplayCounts& counts) {
  ATOD_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  ATOD_ASSIGN_OR_RETURN(const json golden, ParseJson(bytes, path));
  return WithFile(Replay(golden, path, start, counts), path);
}

absl::StatusOr<ReplayEpisode> StartLocally(const GoldenGame& game,
                                           uint32_t max_turns) {
  AlfworldOptions options;
  options.name = game.env;
  options.data = game.path;
  options.demangle = game.env != "textworld";
  ATOD_ASSIGN_OR_RETURN(std::unique_ptr<AlfworldEnvironment> env,
                        AlfworldEnvironment::Open(options));
  const std::string split = env->description().splits[0].name;
  ATOD_ASSIGN_OR_RETURN(const TaskInfo task, env->GetTask(split, 0));
  ATOD_ASSIGN_OR_RETURN(
      std::shared_ptr<Episode> episode,
      env->Start(
          {.split = split, .task_id = task.task_id, .max_turns = max_turns}));
  return ReplayEpisode{
      episode->observation(),
      [episode](uint32_t,
                const std::string& action) -> absl::StatusOr<Observation> {
        return episode->StepAction(action).observation;
      }};
}

}  // namespace atod::envs
