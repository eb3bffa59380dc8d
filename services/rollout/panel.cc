#include "services/rollout/panel.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/base/warn.h"
#include "common/model/model_folder.h"
#include "common/model/threads.h"
#include "services/envs/local_caller.h"
#include "services/envs/open_environment.h"
#include "services/learner/task_source.h"
#include "services/rollout/engine_options.h"

namespace atod::rollout {

uint64_t TaskSeed(uint64_t seed, size_t i) {
  return MixSeed(seed, i, 0x6576616c);
}

absl::StatusOr<Panel> OpenPanel(v1::RunConfig config,
                                const PanelChoice& choice) {
  Panel panel;
  panel.config = std::move(config);
  const v1::RunConfig& c = panel.config;
  model::SetComputeThreads(c.threads().rollout());
  ATOD_ASSIGN_OR_RETURN(panel.env, envs::OpenEnvironment(c.env()));
  panel.options.split =
      choice.train_split ? c.env().train_split() : c.eval().split();
  const std::string left_out =
      envs::LeftOutText(panel.env->description(), panel.options.split);
  if (!left_out.empty())
    LogWarning(absl::StrCat(c.env().data(), ": ", left_out));
  for (const envs::SplitInfo& split : panel.env->description().splits) {
    if (split.name != panel.options.split) continue;
    const std::vector<uint32_t> indices =
        learner::MakePanel(choice.seed, split.size, choice.count);
    for (const uint32_t index : indices) {
      ATOD_ASSIGN_OR_RETURN(envs::TaskInfo task,
                            panel.env->GetTask(panel.options.split, index));
      panel.tasks.push_back(
          {std::move(task.task_id), TaskSeed(choice.seed, panel.tasks.size())});
    }
    panel.hash = learner::PanelHash(split.content_hash, indices);
  }
  panel.options.layout = c.layout();
  panel.options.env = panel.env->description().name;
  panel.options.max_turns = c.env().max_turns();
  const v1::SamplingConfig& sampling = c.sampling().train();
  panel.options.sampling = {
      .temperature = static_cast<float>(choice.train_temperature
                                            ? sampling.temperature()
                                            : c.sampling().eval_temperature()),
      .top_p = static_cast<float>(sampling.top_p()),
      .top_k = sampling.top_k(),
      .max_tokens = sampling.max_tokens()};
  panel.options.run_seed = choice.seed;
  panel.options.slots = c.rollout().slots();
  panel.options.max_context = c.model().max_context();
  return panel;
}

absl::StatusOr<PanelPlayer> LoadPlayer(const Panel& panel) {
  PanelPlayer player;
  const std::string& folder = panel.config.model().path();
  ATOD_ASSIGN_OR_RETURN(
      model::ModelFolder opened,
      model::CheckModelFolder(folder, panel.config.model().max_context()));
  player.tokenizer = std::move(opened.tokenizer);
  ATOD_ASSIGN_OR_RETURN(const engine::EngineOptions options,
                        EngineOptionsOf(panel.config, *player.tokenizer));
  ATOD_ASSIGN_OR_RETURN(player.engine, engine::OpenEngine(folder, options));
  player.envs = std::make_unique<envs::LocalCaller>(
      envs::EnvironmentMap{{panel.options.env, panel.env}});
  return player;
}

}  // namespace atod::rollout
