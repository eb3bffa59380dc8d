#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"
#include "common/engine/engine.h"
#include "common/tokenizer/tokenizer.h"
#include "services/envs/env_caller.h"
#include "services/envs/environment.h"
#include "services/rollout/evaluate.h"

namespace atod::rollout {

// Which games of a configuration are a panel.
struct PanelChoice {
  uint32_t count = 300;
  uint64_t seed = 7;               // which games, and the noise
  bool train_split = false;        // the training split, not that of eval
  bool train_temperature = false;  // likewise
};

// A fixed list of games, and how a configuration plays them in this process.
struct Panel {
  v1::RunConfig config;  // what is played; model.path is the model's folder
  std::shared_ptr<const envs::Environment> env;
  std::vector<EvalTask> tasks;  // none: the split has no games
  EvalOptions options;
  std::string hash;  // split content and chosen games
};

// Says on stderr which games of the split are left out.
absl::StatusOr<Panel> OpenPanel(v1::RunConfig config,
                                const PanelChoice& choice);

// Noise and scripted choices of a game depend on its place in the list, which
// the seed fixes, and not on what is played beside it.
uint64_t TaskSeed(uint64_t seed, size_t i);

// What a model plays a panel with.
struct PanelPlayer {
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<engine::ModelEngine> engine;
  std::unique_ptr<envs::EnvCaller> envs;
};

absl::StatusOr<PanelPlayer> LoadPlayer(const Panel& panel);

}  // namespace atod::rollout
