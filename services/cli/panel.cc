#include "services/cli/panel.h"

#include <utility>

#include "common/base/problem.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/model/threads.h"
#include "services/envs/alfworld/alfworld_environment.h"
#include "services/envs/local_caller.h"
#include "services/learner/task_source.h"

namespace atod::cli {

void AddPanelFlags(CLI::App& sub, PanelFlags& flags) {
  sub.add_option("--games", flags.games, "folder with a sub-folder a split")
      ->required();
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
}

uint64_t TaskSeed(uint64_t seed, size_t i) {
  return MixSeed(seed, i, 0x6576616c);
}

absl::StatusOr<Panel> OpenPanel(const PanelFlags& flags) {
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
  ATOD_ASSIGN_OR_RETURN(player.tokenizer, Tokenizer::Load(model_dir));
  rollout::EngineOptions options;
  options.model.max_slots = static_cast<int>(flags.slots);
  options.model.max_context = flags.max_context;
  if (player.tokenizer->eos_id())
    options.stop_tokens = {*player.tokenizer->eos_id()};
  ATOD_ASSIGN_OR_RETURN(player.engine, rollout::MakeEngine(model_dir, options));
  player.envs = std::make_unique<envs::LocalCaller>(
      envs::EnvironmentMap{{panel.options.env, panel.env}});
  return player;
}

}  // namespace atod::cli
