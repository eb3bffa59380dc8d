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
#include "services/envs/alfworld/game_folder.h"
#include "services/envs/alfworld/projection.h"
#include "services/envs/alfworld/world.h"

namespace atod::envs {
namespace {

namespace fs = std::filesystem;

constexpr char kVersion[] = "1";
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
    if (episode->world_.won())
      return BadInput({"", "pddl_problem", 0, "a goal that holds at the start",
                       "one that must be reached"});
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

absl::StatusOr<std::unique_ptr<AlfworldEnvironment>> AlfworldEnvironment::Open(
    const AlfworldOptions& options) {
  std::unique_ptr<AlfworldEnvironment> env(new AlfworldEnvironment(options));
  ATOD_ASSIGN_OR_RETURN(env->description_.prompt, Prompt(options));
  ATOD_ASSIGN_OR_RETURN(GameFolder folder, FindGames(options.data));
  for (FoundGame& game : folder.games) {
    Split& s = env->splits_[game.split];
    s.index[game.task_id] = s.tasks.size();
    s.tasks.push_back({{std::move(game.task_id), std::move(game.category),
                        options.name, std::move(game.content_hash)},
                       std::move(game.path)});
  }
  env->description_.left_out_total =
      static_cast<uint32_t>(folder.left_out.size());
  env->description_.left_out = std::move(folder.left_out);
  if (env->splits_.empty()) {
    const std::string left_out = LeftOutText(env->description_, "");
    return BadInput(
        {options.data, "env.data", 0,
         absl::StrCat("no usable game", left_out.empty() ? "" : ", ", left_out),
         "*.tw-pddl files in a sub-folder for each split"});
  }
  env->Describe();
  return env;
}

void AlfworldEnvironment::Describe() {
  EnvDescription& d = description_;
  d.name = options_.name;
  d.version = std::string(kVersion);
  d.deterministic = true;
  d.default_max_turns = options_.max_turns;
  d.success_threshold = 1;
  std::set<std::string> categories(std::begin(kTaskTypes),
                                   std::end(kTaskTypes));
  for (const auto& [name, split] : splits_) {
    std::vector<std::string> hashes;
    for (const Task& task : split.tasks) {
      hashes.push_back(task.info.content_hash);
      categories.insert(task.info.category);
    }
    std::sort(hashes.begin(), hashes.end());
    std::string all;
    for (const std::string& hash : hashes) absl::StrAppend(&all, hash, "\n");
    const auto left_out =
        std::count_if(d.left_out.begin(), d.left_out.end(),
                      [&](const LeftOut& task) { return task.split == name; });
    d.splits.push_back({name, static_cast<uint32_t>(split.tasks.size()),
                        HashHex(all), static_cast<uint32_t>(left_out)});
  }
  d.categories.assign(categories.begin(), categories.end());
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
  absl::StatusOr<std::unique_ptr<Episode>> episode = AlfworldEpisode::Start(
      std::move(game), options_,
      options.max_turns > 0 ? options.max_turns : options_.max_turns,
      task.info.category);
  if (!episode.ok()) return WithFile(episode.status(), task.path);
  return episode;
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
