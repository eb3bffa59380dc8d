#include "services/cli/panel.h"

#include <filesystem>
#include <utility>

#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/model/model_folder.h"
#include "common/model/threads.h"
#include "services/cli/command.h"
#include "services/envs/alfworld/alfworld_environment.h"
#include "services/envs/local_caller.h"
#include "services/learner/task_source.h"

namespace atod::cli {

namespace {

// What the configuration says, where no flag said otherwise.
absl::Status FillFromConfig(PanelFlags& flags) {
  if (flags.config.empty() && flags.sets.empty()) {
    if (flags.games.empty())
      return BadInput(
          {"", "--games", 0, "nothing", "a folder with games, or --config"});
    return absl::OkStatus();
  }
  ATOD_ASSIGN_OR_RETURN(const config::LoadedConfig loaded,
                        config::LoadRunConfig(flags.config, flags.sets));
  const v1::RunConfig& c = loaded.config;
  const auto fill = [&](const char* flag, auto& to, const auto& value) {
    if (flags.given->count(flag) == 0) to = value;
  };
  fill("--games", flags.games, c.env().data());
  fill("--prompt-set", flags.prompt_set, c.env().prompt_set());
  fill("--history-length", flags.history_length, c.env().history_length());
  fill("--max-turns", flags.max_turns, c.env().max_turns());
  fill("--max-tokens", flags.max_tokens, c.sampling().train().max_tokens());
  fill("--max-context", flags.max_context, c.model().max_context());
  fill("--slots", flags.slots, c.rollout().slots());
  fill("--threads", flags.threads, c.threads().rollout());
  fill("--device", flags.device, c.device());
  fill("--dtype", flags.dtype, c.model().dtype());
  fill("--split", flags.split,
       flags.train_split ? c.env().train_split() : c.eval().split());
  fill("--temperature", flags.temperature,
       flags.train_temperature ? c.sampling().train().temperature()
                               : c.sampling().eval_temperature());
  return absl::OkStatus();
}

}  // namespace

void AddPanelFlags(CLI::App& sub, PanelFlags& flags) {
  flags.given = &sub;
  AddConfigFlags(sub, flags.config, flags.sets);
  sub.add_option("--games", flags.games, "folder with a sub-folder a split");
  sub.add_option("--split", flags.split, "split to play")
      ->capture_default_str();
  sub.add_option("--count", flags.count, "number of games")
      ->capture_default_str();
  sub.add_option("--seed", flags.seed, "which games, and the noise")
      ->capture_default_str();
  sub.add_option("--temperature", flags.temperature, "0 is greedy")
      ->capture_default_str();
  sub.add_option("--prompt-set", flags.prompt_set, "prompt templates")
      ->capture_default_str();
  sub.add_option("--history-length", flags.history_length,
                 "turns in the history window")
      ->capture_default_str();
  sub.add_option("--max-turns", flags.max_turns, "turn limit")
      ->capture_default_str();
  sub.add_option("--max-tokens", flags.max_tokens, "longest response, tokens")
      ->capture_default_str();
  sub.add_option("--max-context", flags.max_context,
                 "longest prompt and response, tokens")
      ->capture_default_str();
  sub.add_option("--slots", flags.slots, "games played at once")
      ->capture_default_str();
  sub.add_option("--threads", flags.threads, "compute threads; 0: all cores");
  sub.add_option("--device", flags.device, "where the model runs: cpu or cuda")
      ->capture_default_str();
  sub.add_option("--dtype", flags.dtype, "of the model: float32 or bfloat16")
      ->capture_default_str();
}

std::string ModelFolder(const std::string& dir) {
  const std::filesystem::path inner = std::filesystem::path(dir) / "model";
  if (!std::filesystem::exists(std::filesystem::path(dir) / "config.json") &&
      std::filesystem::exists(inner / "config.json"))
    return inner.string();
  return dir;
}

uint64_t TaskSeed(uint64_t seed, size_t i) {
  return MixSeed(seed, i, 0x6576616c);
}

absl::StatusOr<Panel> OpenPanel(PanelFlags& flags) {
  ATOD_RETURN_IF_ERROR(FillFromConfig(flags));
  if (!flags.out.empty()) {
    const std::filesystem::path out(flags.out);
    if (out.has_parent_path())
      ATOD_RETURN_IF_ERROR(MakeDirs(out.parent_path().string()));
    const std::string probe = flags.out + ".part";
    ATOD_RETURN_IF_ERROR(WriteFileAtomic(probe, ""));
    std::filesystem::remove(probe);
  }
  model::SetComputeThreads(flags.threads);
  envs::AlfworldOptions env_options;
  env_options.data = flags.games;
  env_options.prompt_set = flags.prompt_set;
  env_options.history_length = flags.history_length;
  env_options.max_turns = flags.max_turns;
  Panel panel;
  ATOD_ASSIGN_OR_RETURN(panel.env,
                        envs::AlfworldEnvironment::Open(env_options));
  for (const envs::SplitInfo& split : panel.env->description().splits) {
    if (split.name != flags.split) continue;
    const std::vector<uint32_t> indices =
        learner::MakePanel(flags.seed, split.size, flags.count);
    for (const uint32_t index : indices) {
      ATOD_ASSIGN_OR_RETURN(envs::TaskInfo task,
                            panel.env->GetTask(flags.split, index));
      panel.tasks.push_back(
          {std::move(task.task_id), TaskSeed(flags.seed, panel.tasks.size())});
    }
    panel.hash = learner::PanelHash(split.content_hash, indices);
  }
  if (panel.tasks.empty()) {
    return BadInput(
        {flags.games, "--split", 0, flags.split, "a sub-folder with games"});
  }
  panel.options.env = panel.env->description().name;
  panel.options.split = flags.split;
  panel.options.max_turns = flags.max_turns;
  panel.options.sampling = {static_cast<float>(flags.temperature), 1, 0,
                            flags.max_tokens};
  panel.options.run_seed = flags.seed;
  panel.options.slots = flags.slots;
  panel.options.max_context = flags.max_context;
  return panel;
}

absl::StatusOr<PanelPlayer> LoadPlayer(const std::string& model_dir,
                                       const Panel& panel,
                                       const PanelFlags& flags) {
  PanelPlayer player;
  const std::string folder = ModelFolder(model_dir);
  ATOD_ASSIGN_OR_RETURN(model::ModelFolder opened,
                        model::CheckModelFolder(folder, flags.max_context));
  player.tokenizer = std::move(opened.tokenizer);
  if (panel.env->description().prompt.chat)
    ATOD_RETURN_IF_ERROR(player.tokenizer->template_status());
  rollout::EngineOptions options;
  options.model.device = flags.device;
  options.model.dtype = flags.dtype;
  options.model.max_slots = static_cast<int>(flags.slots);
  options.model.max_context = flags.max_context;
  ATOD_ASSIGN_OR_RETURN(player.engine, rollout::MakeEngine(folder, options));
  player.envs = std::make_unique<envs::LocalCaller>(
      envs::EnvironmentMap{{panel.options.env, panel.env}});
  return player;
}

}  // namespace atod::cli
