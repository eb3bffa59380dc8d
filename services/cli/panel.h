#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"
#include "common/tokenizer/tokenizer.h"
#include "services/cli/command.h"
#include "services/envs/env_caller.h"
#include "services/envs/environment.h"
#include "services/rollout/engine.h"
#include "services/rollout/evaluate.h"

namespace atod::cli {

// A fixed list of games and how they are played in this process; shared by
// `eval`, `diagnose` and `collect`. The flags are written over a run's
// configuration; from there on all is played as the configuration says. Without
// one, the values below stand for what no flag says.
struct PanelFlags {
  std::vector<std::string> config;
  std::vector<std::string> sets;
  bool train_split = false;        // its training split, not that of eval
  bool train_temperature = false;  // likewise
  Command given;                   // which flags the command line has
  std::string model;  // folder of the model that plays; empty: a policy plays
  std::string games;
  std::string split = "valid_seen";
  std::string prompt_set = "compact";
  uint32_t count = 300;
  uint64_t seed = 7;
  uint32_t max_turns = 20;
  uint32_t history_length = 2;
  uint32_t max_tokens = 0;   // 0: as the prompt set and the model need
  uint32_t max_context = 0;  // likewise
  uint32_t slots = 128;
  uint32_t threads = 0;
  double temperature = 0.4;
  std::string device = "cpu";
  std::string dtype = "float32";
  std::string out;  // file that is written in the end
};

// The flags of `sub` that fill `flags`, which outlives it.
void AddPanelFlags(Command sub, PanelFlags& flags);

struct Panel {
  v1::RunConfig config;  // what is played; model.path is the model's folder
  std::shared_ptr<const envs::Environment> env;
  std::vector<rollout::EvalTask> tasks;
  rollout::EvalOptions options;
  std::string hash;  // split content and chosen games
};

// Fails early where `out` cannot be written.
absl::StatusOr<Panel> OpenPanel(const PanelFlags& flags);

// The model's folder: `dir`, or its sub-folder `model` where `dir` is a
// checkpoint.
std::string ModelFolder(const std::string& dir);

// Noise and scripted choices of a game depend on its place in the list, which
// --seed fixes, and not on what is played beside it.
uint64_t TaskSeed(uint64_t seed, size_t i);

// What a model plays a panel with.
struct PanelPlayer {
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<rollout::ModelEngine> engine;
  std::unique_ptr<envs::EnvCaller> envs;
};

absl::StatusOr<PanelPlayer> LoadPlayer(const Panel& panel);

// Says on stderr which games ended in errors and are left out. False, with the
// first reason as the error line, when more than env.max_error_share of them
// did, or none was played to its end.
bool FewErrors(const std::vector<rollout::EvalResult>& results,
               const Panel& panel);

}  // namespace atod::cli
