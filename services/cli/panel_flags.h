#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/cli/command.h"
#include "services/rollout/panel.h"

namespace atod::cli {

// The panel of `eval`, `diagnose` and `collect`: flags written over a run's
// configuration; from there on all is played as the configuration says. Without
// one, the values below stand for what no flag says.
struct PanelFlags {
  rollout::PanelChoice choice;
  std::vector<std::string> config;
  std::vector<std::string> sets;
  Command given;      // which flags the command line has
  std::string model;  // folder of the model that plays; empty: a policy plays
  std::string games;
  std::string split = "valid_seen";
  std::string prompt_set = "compact";
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

// Fails early where `out` cannot be written.
absl::StatusOr<rollout::Panel> OpenPanel(const PanelFlags& flags);

// The model's folder: `dir`, or its sub-folder `model` where `dir` is a
// checkpoint.
std::string ModelFolder(const std::string& dir);

// Says on stderr which games ended in errors and are left out. False, with the
// first reason as the error line, when more than env.max_error_share of them
// did, or none was played to its end.
bool FewErrors(const std::vector<rollout::EvalResult>& results,
               const rollout::Panel& panel);

}  // namespace atod::cli
