#include "services/envs/games/demos.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/base/problem.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/prompt/render.h"
#include "services/envs/games/planner.h"

namespace atod::games {
namespace {

using Names = std::vector<std::string>;

// All "word number" pairs in a field, without marks.
void CollectNames(const envs::Observation& seen, const char* field,
                  Names& names) {
  const auto it = seen.fields.find(field);
  if (it == seen.fields.end()) return;
  const std::string plain = absl::StrReplaceAll(
      it->second, {{"*", ""}, {",", ""}, {".", ""}, {"\n", " "}});
  const Names words = absl::StrSplit(plain, ' ');
  for (size_t i = 1; i < words.size(); ++i)
    if (!words[i].empty() && words[i][0] >= '0' && words[i][0] <= '9')
      names.push_back(absl::StrCat(words[i - 1], " ", words[i]));
}

// A well-formed command that does nothing here.
std::string Futile(const envs::Observation& seen, Rng& rng) {
  Names places, things;
  for (const char* field : {"unchecked", "checked"})
    CollectNames(seen, field, places);
  for (const char* field : {"text", "holding"})
    CollectNames(seen, field, things);
  if (places.empty() || things.empty()) return "go to nowhere";
  for (int tries = 0; tries < 20; ++tries) {
    const std::string& place = places[rng.Below(places.size())];
    const std::string& thing = things[rng.Below(things.size())];
    std::string command;
    switch (rng.Below(9)) {
      case 0:
        command = absl::StrCat("go to ", thing);
        break;
      case 1:
        command = absl::StrCat("open ", place);
        break;
      case 2:
        command = absl::StrCat("close ", place);
        break;
      case 3:
        command = absl::StrCat("take ", thing, " from ", place);
        break;
      case 4:
        command = absl::StrCat("move ", thing, " to ", place);
        break;
      case 5:
        command = absl::StrCat("heat ", thing, " with ", place);
        break;
      case 6:
        command = absl::StrCat("clean ", thing, " with ", place);
        break;
      case 7:
        command = absl::StrCat("cool ", thing, " with ", place);
        break;
      default:
        command = absl::StrCat("use ", thing);
    }
    if (!std::binary_search(seen.admissible.begin(), seen.admissible.end(),
                            command))
      return command;
  }
  return "go to nowhere";
}

std::string Disturbance(const DemoOptions& options,
                        const envs::Observation& seen, Rng& rng) {
  if (rng.Uniform() < options.noise_admissible && !seen.admissible.empty())
    return seen.admissible[rng.Below(seen.admissible.size())];
  return Futile(seen, rng);
}

std::string Prompt(const PromptSpec& spec, std::string_view layout,
                   const envs::Observation& seen) {
  PromptInputs inputs;
  inputs.task = seen.task;
  inputs.observation = seen.text;
  inputs.fields = seen.fields;
  inputs.turn_index = seen.turn_index;
  return layout == kGrowing && seen.turn_index > 0 ? RenderGrow(spec, inputs)
                                                   : RenderPrompt(spec, inputs);
}

absl::StatusOr<std::vector<std::pair<std::string, TaskType>>> Tasks(
    const envs::Environment& env, const std::string& split) {
  std::vector<std::pair<std::string, TaskType>> tasks;
  for (const envs::SplitInfo& info : env.description().splits) {
    if (info.name != split) continue;
    for (uint32_t i = 0; i < info.size; ++i) {
      ATOD_ASSIGN_OR_RETURN(const envs::TaskInfo task, env.GetTask(split, i));
      const std::optional<TaskType> type = ParseTaskType(task.category);
      if (!type)
        return BadInput({.file = task.task_id,
                         .field = "task type",
                         .found = task.category,
                         .expected = "one of ALFWorld's six"});
      tasks.emplace_back(task.task_id, *type);
    }
  }
  if (tasks.empty())
    return BadInput({.file = "",
                     .field = "split",
                     .found = split,
                     .expected = "a split with games"});
  return tasks;
}

}  // namespace

absl::StatusOr<DemoCounts> PlayDemos(const envs::Environment& env,
                                     const DemoOptions& options,
                                     const DemoSink& sink) {
  if (env.description().prompt.name != "compact")
    return BadInput({.file = "",
                     .field = "prompt_set",
                     .found = env.description().prompt.name,
                     .expected = "compact, which shows all that the expert "
                                 "decides by"});
  ATOD_RETURN_IF_ERROR(CheckLayout(env.description().prompt, options.layout));
  ATOD_ASSIGN_OR_RETURN(auto tasks, Tasks(env, options.split));
  Rng order(MixSeed(options.seed, 1));
  DemoCounts counts;
  for (int demo = 0; demo < options.count; ++demo) {
    if (demo % tasks.size() == 0) order.Shuffle(tasks);
    const auto& [task_id, type] = tasks[demo % tasks.size()];
    Rng rng(MixSeed(options.seed, 2, demo));
    const bool forgets =
        rng.Uniform() < options.forget[static_cast<size_t>(type)];
    ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<envs::Episode> episode,
                          env.Start({.split = options.split,
                                     .task_id = task_id,
                                     .seed = 0,
                                     .max_turns = options.max_turns}));
    int looks = 0;
    while (!episode->observation().done && looks < options.look_rows) {
      const envs::Observation& seen = episode->observation();
      Step step = Plan(seen, forgets);
      // Having given up is for good, whatever looking shows.
      if (looks > 0) step = {"look", /*gave_up=*/true};
      looks += step.gave_up;
      const bool disturb = !step.gave_up && rng.Uniform() < options.noise;
      const std::string executed =
          disturb ? Disturbance(options, seen, rng) : step.command;
      ATOD_RETURN_IF_ERROR(
          sink({demo, Prompt(env.description().prompt, options.layout, seen),
                absl::StrCat(" ", step.command), absl::StrCat(" ", executed)}));
      ++counts.rows;
      episode->StepAction(executed);
    }
    ++counts.episodes;
    counts.forgetful += forgets;
    counts.won += episode->observation().success;
  }
  return counts;
}

}  // namespace atod::games
