#include "services/envs/alfworld/alfworld_environment.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/prompt/household_prompts.h"
#include "common/prompt/released.h"
#include "services/envs/alfworld/agent_view.h"
#include "services/envs/alfworld/projection.h"
#include "services/envs/alfworld/world.h"

namespace atod::envs {
namespace {

namespace fs = std::filesystem;

constexpr char kVersion[] = "1";
constexpr char kExtension[] = ".tw-pddl";
constexpr char kFlatSplit[] = "games";
constexpr char kOtherCategory[] = "other";
constexpr std::string_view kTaskTypes[] = {
    "look_at_obj_in_light",           "pick_and_place_simple",
    "pick_clean_then_place_in_recep", "pick_cool_then_place_in_recep",
    "pick_heat_then_place_in_recep",  "pick_two_obj_and_place"};

bool IsTaskType(std::string_view text) {
  return std::find(std::begin(kTaskTypes), std::end(kTaskTypes), text) !=
         std::end(kTaskTypes);
}

// The text of the value of `key` in a JSON file (without the quotes of a
// string), found without parsing: opening a data set reads thousands of files.
// A quoted key cannot occur inside a JSON string.
std::string_view JsonScalar(std::string_view json, std::string_view key) {
  size_t at = json.find(absl::StrCat("\"", std::string(key), "\""));
  if (at == std::string_view::npos) return {};
  at = json.find(':', at + key.size() + 2);
  if (at == std::string_view::npos) return {};
  at = json.find_first_not_of(" \t\r\n", at + 1);
  if (at == std::string_view::npos) return {};
  if (json[at] == '"')
    return json.substr(at + 1, json.find('"', at + 1) - at - 1);
  return json.substr(at, json.find_first_of(",}] \t\r\n", at) - at);
}

std::string Category(std::string_view task_id, std::string_view json) {
  for (const std::string_view type : kTaskTypes)
    if (task_id.find(type) != std::string_view::npos) return std::string(type);
  const std::string_view type = JsonScalar(json, "task_type");
  return type.empty() ? kOtherCategory : std::string(type);
}

// What stands after the announcement of the task, to the end of the text.
std::string TaskSentence(std::string_view intro) {
  for (const std::string_view mark :
       {"Your task is to: ", "Your task is to "}) {
    const size_t at = intro.find(mark);
    if (at == std::string_view::npos) continue;
    std::string_view task = intro.substr(at + mark.size());
    while (!task.empty() && (task.back() == '\n' || task.back() == ' '))
      task.remove_suffix(1);
    return std::string(task);
  }
  return "";
}

absl::StatusOr<PromptSpec> Prompt(const AlfworldOptions& options) {
  PromptSpec spec;
  if (options.prompt_set == "compact") return CompactPromptSpec();
  if (options.prompt_set == "paper") {
    spec = PaperPromptSpec();
  } else if (options.prompt_set == "released") {
    ATOD_ASSIGN_OR_RETURN(spec, ReleasedPromptSpec("alfworld"));
  } else {
    return BadInput({"", "env.prompt_set", 0,
                     absl::StrCat("'", options.prompt_set, "'"),
                     "paper, released or compact"});
  }
  spec.window = options.history_length;
  return spec;
}

class AlfworldEpisode : public Episode {
 public:
  static absl::StatusOr<std::unique_ptr<Episode>> Start(
      std::shared_ptr<const Game> game, const AlfworldOptions& options,
      uint32_t max_turns, const std::string& category) {
    std::unique_ptr<AlfworldEpisode> episode(
        new AlfworldEpisode(std::move(game), options, max_turns, category));
    ATOD_RETURN_IF_ERROR(episode->world_.Reset());
    episode->Describe();
    return std::unique_ptr<Episode>(std::move(episode));
  }

  const Observation& observation() const override {
    return result_.observation;
  }

  StepResult StepText(std::string_view model_text) override {
    const Projected projected = Project(options_.prompt_set, model_text);
    return Play(projected.action, projected.valid);
  }

  StepResult StepAction(std::string_view action) override {
    return Play(std::string(action), true);
  }

 private:
  AlfworldEpisode(std::shared_ptr<const Game> game,
                  const AlfworldOptions& options, uint32_t max_turns,
                  const std::string& category)
      : options_(options),
        max_turns_(max_turns),
        world_(game),
        task_(TaskSentence(game->intro())),
        view_(game->intro(), task_) {
    result_.observation.task = task_;
    result_.observation.category = category;
  }

  StepResult Play(const std::string& action, bool valid) {
    Observation& now = result_.observation;
    if (now.done) return result_;
    const absl::Status status = world_.Step(action);
    result_.executed_action = action;
    result_.action_valid = valid;
    result_.action_admissible = world_.last_admissible();
    ++now.turn_index;
    if (!status.ok()) {
      now.text = std::string(status.message());
      now.done = true;
      now.done_reason = DoneReason::kError;
      return result_;
    }
    view_.Observe(action, world_.feedback());
    Describe();
    now.reward = now.success ? static_cast<float>(options_.success_reward) : 0;
    if (now.success)
      now.done_reason = DoneReason::kWon;
    else if (now.turn_index >= max_turns_)
      now.done_reason = DoneReason::kLimit;
    now.done = now.done_reason != DoneReason::kNotDone;
    return result_;
  }

  void Describe() {
    Observation& now = result_.observation;
    now.text = world_.feedback();
    now.anchor = now.text;
    now.admissible = world_.admissible();
    now.fields = view_.Fields();
    now.success = world_.won();
    now.task_score = now.success ? 1 : 0;
  }

  const AlfworldOptions options_;
  const uint32_t max_turns_;
  World world_;
  const std::string task_;
  AgentView view_;
  StepResult result_;
};

}  // namespace

absl::Status AlfworldEnvironment::AddGame(const std::string& split,
                                          const std::string& task_id,
                                          const std::string& path) {
  ATOD_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  std::string category = Category(task_id, bytes);
  const fs::path record = fs::path(path).parent_path() / "traj_data.json";
  std::error_code error;
  if (path != options_.data && fs::exists(record, error)) {
    ATOD_ASSIGN_OR_RETURN(const std::string alfred, ReadFile(record.string()));
    const std::string type(JsonScalar(alfred, "task_type"));
    const bool used = IsTaskType(type) &&
                      JsonScalar(bytes, "solvable") == "true" &&
                      task_id.find("movable") == std::string::npos &&
                      task_id.find("Sliced") == std::string::npos;
    if (!used) return absl::OkStatus();
    category = type;
  }
  Split& s = splits_[split];
  s.index[task_id] = s.tasks.size();
  s.tasks.push_back(
      {{task_id, std::move(category), options_.name, HashHex(bytes)}, path});
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<AlfworldEnvironment>> AlfworldEnvironment::Open(
    const AlfworldOptions& options) {
  std::unique_ptr<AlfworldEnvironment> env(new AlfworldEnvironment(options));
  ATOD_ASSIGN_OR_RETURN(env->description_.prompt, Prompt(options));

  std::vector<std::string> paths;
  std::error_code error;
  const fs::path root = options.data;
  if (fs::is_regular_file(root, error)) {
    paths.push_back(options.data);
  } else {
    fs::recursive_directory_iterator it(
        root, fs::directory_options::follow_directory_symlink, error);
    for (; !error && it != fs::recursive_directory_iterator();
         it.increment(error))
      if (it->path().extension() == kExtension)
        paths.push_back(it->path().string());
    if (error)
      return BadInput({options.data, "env.data", 0, error.message(),
                       "a folder of *.tw-pddl games"});
  }
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) {
    fs::path below = fs::path(path).lexically_relative(root);
    std::string split = kFlatSplit;
    if (path == options.data) {
      below = fs::path(path).filename();
    } else if (std::distance(below.begin(), below.end()) > 1) {
      split = below.begin()->string();
      below = below.lexically_relative(split);
    }
    ATOD_RETURN_IF_ERROR(env->AddGame(
        split, below.replace_extension("").generic_string(), path));
  }
  if (env->splits_.empty())
    return BadInput({options.data, "env.data", 0, "no usable game",
                     "*.tw-pddl files in a sub-folder for each split"});

  EnvDescription& d = env->description_;
  d.name = options.name;
  d.version = std::string(kVersion);
  d.deterministic = true;
  d.default_max_turns = options.max_turns;
  d.success_threshold = 1;
  std::set<std::string> categories(std::begin(kTaskTypes),
                                   std::end(kTaskTypes));
  for (const auto& [name, split] : env->splits_) {
    std::vector<std::string> hashes;
    for (const Task& task : split.tasks) {
      hashes.push_back(task.info.content_hash);
      categories.insert(task.info.category);
    }
    std::sort(hashes.begin(), hashes.end());
    std::string all;
    for (const std::string& hash : hashes) absl::StrAppend(&all, hash, "\n");
    d.splits.push_back(
        {name, static_cast<uint32_t>(split.tasks.size()), HashHex(all)});
  }
  d.categories.assign(categories.begin(), categories.end());
  return env;
}

absl::StatusOr<TaskInfo> AlfworldEnvironment::GetTask(std::string_view split,
                                                      uint32_t index) const {
  const auto it = splits_.find(split);
  if (it == splits_.end())
    return absl::NotFoundError(absl::StrCat(options_.name, " has no split '",
                                            std::string(split), "'"));
  if (index >= it->second.tasks.size())
    return absl::NotFoundError(absl::StrCat("split '", std::string(split),
                                            "' has ", it->second.tasks.size(),
                                            " tasks, no index ", index));
  return it->second.tasks[index].info;
}

absl::StatusOr<std::unique_ptr<Episode>> AlfworldEnvironment::Start(
    const EpisodeOptions& options) const {
  const auto split = splits_.find(options.split);
  if (split == splits_.end())
    return absl::NotFoundError(
        absl::StrCat(options_.name, " has no split '", options.split, "'"));
  const auto index = split->second.index.find(options.task_id);
  if (index == split->second.index.end())
    return absl::NotFoundError(absl::StrCat(
        "split '", options.split, "' has no task '", options.task_id, "'"));
  const Task& task = split->second.tasks[index->second];
  ATOD_ASSIGN_OR_RETURN(std::shared_ptr<const Game> game, Load(task.path));
  return AlfworldEpisode::Start(
      std::move(game), options_,
      options.max_turns > 0 ? options.max_turns : options_.max_turns,
      task.info.category);
}

absl::StatusOr<std::shared_ptr<const Game>> AlfworldEnvironment::Load(
    const std::string& path) const {
  {
    absl::MutexLock lock(&mutex_);
    const auto it = cache_index_.find(path);
    if (it != cache_index_.end()) {
      cache_.splice(cache_.begin(), cache_, it->second);
      return it->second->second;
    }
  }
  // Two callers may load the same game at once; either copy will do.
  ATOD_ASSIGN_OR_RETURN(std::shared_ptr<const Game> game,
                        LoadGame(path, {.demangle = options_.demangle}));
  absl::MutexLock lock(&mutex_);
  if (cache_index_.find(path) == cache_index_.end()) {
    cache_.emplace_front(path, game);
    cache_index_[path] = cache_.begin();
    if (cache_.size() > options_.cached_games) {
      cache_index_.erase(cache_.back().first);
      cache_.pop_back();
    }
  }
  return game;
}

}  // namespace atod::envs
