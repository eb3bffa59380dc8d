#include "services/cli/panel_flags.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/error_share.h"
#include "common/base/file.h"
#include "common/base/printable.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/base/warn.h"
#include "common/config/config.h"
#include "common/model/model_config.h"
#include "services/cli/command.h"

namespace atod::cli {
namespace {

// Longest prompt and response together, and the response, where neither flags
// nor a configuration say. The compact prompts are short; others get what a run
// has by default, or what the model has.
struct Window {
  uint32_t context = 160;
  uint32_t response = 14;
};
absl::StatusOr<Window> OwnWindow(const PanelFlags& flags,
                                 const v1::RunConfig& defaults) {
  Window window;
  if (flags.prompt_set != "compact") {
    window.context = defaults.model().max_context();
    if (flags.max_context > 0) window.context = flags.max_context;
    if (!flags.model.empty()) {
      ATOD_ASSIGN_OR_RETURN(const model::ModelConfig model,
                            model::ReadModelConfig(ModelFolder(flags.model)));
      window.context = static_cast<uint32_t>(
          std::min<int64_t>(window.context, model.max_position_embeddings));
    }
    window.response =
        std::min(defaults.sampling().train().max_tokens(), window.context / 4);
  }
  if (flags.max_context > 0) window.context = flags.max_context;
  if (flags.max_tokens > 0) window.response = flags.max_tokens;
  return window;
}

// The flags written over the configuration that they came with.
absl::StatusOr<v1::RunConfig> ConfigOf(const PanelFlags& flags) {
  const bool own = flags.config.empty() && flags.sets.empty();
  if (own && flags.games.empty())
    return BadInput(
        {"", "--games", 0, "nothing", "a folder with games, or --config"});
  Window window{flags.max_context, flags.max_tokens};
  if (own) {
    ATOD_ASSIGN_OR_RETURN(const config::LoadedConfig defaults,
                          config::LoadRunConfig({}));
    ATOD_ASSIGN_OR_RETURN(window, OwnWindow(flags, defaults.config));
  }
  std::vector<std::string> sets = flags.sets;
  const auto says = [&](const char* flag) {
    return own || flags.given.Has(flag);
  };
  const auto set = [&](const char* flag, const char* key, const auto& value) {
    if (says(flag)) sets.push_back(absl::StrCat(key, "=", value));
  };
  set("--prompt-set", "env.prompt_set", flags.prompt_set);
  set("--history-length", "env.history_length", flags.history_length);
  set("--max-turns", "env.max_turns", flags.max_turns);
  set("--max-tokens", "sampling.train.max_tokens", window.response);
  set("--max-context", "model.max_context", window.context);
  set("--slots", "rollout.slots", flags.slots);
  set("--threads", "threads.rollout", flags.threads);
  set("--device", "device", flags.device);
  set("--dtype", "model.dtype", flags.dtype);
  set("--temperature",
      flags.choice.train_temperature ? "sampling.train.temperature"
                                     : "sampling.eval_temperature",
      absl::StrFormat("%.17g", flags.temperature));
  ATOD_ASSIGN_OR_RETURN(config::LoadedConfig loaded,
                        config::LoadRunConfig(flags.config, sets));
  v1::RunConfig& c = loaded.config;
  // Paths are no YAML.
  if (says("--games")) c.mutable_env()->set_data(flags.games);
  if (says("--split"))
    flags.choice.train_split ? c.mutable_env()->set_train_split(flags.split)
                             : c.mutable_eval()->set_split(flags.split);
  if (!flags.model.empty())
    c.mutable_model()->set_path(ModelFolder(flags.model));
  return std::move(c);
}

}  // namespace

void AddPanelFlags(Command sub, PanelFlags& flags) {
  flags.given = sub;
  sub.ConfigFlags(flags.config, flags.sets);
  sub.Arg("--games", flags.games, "folder with a sub-folder a split");
  sub.Arg("--split", flags.split, "split to play").ShowDefault();
  sub.Arg("--count", flags.choice.count, "number of games").ShowDefault();
  sub.Arg("--seed", flags.choice.seed, "which games, and the noise")
      .WholeNumber()
      .ShowDefault();
  sub.Arg("--temperature", flags.temperature, "0 is greedy").ShowDefault();
  sub.Arg("--prompt-set", flags.prompt_set, "prompt templates").ShowDefault();
  sub.Arg("--history-length", flags.history_length,
          "turns in the history window")
      .ShowDefault();
  sub.Arg("--max-turns", flags.max_turns, "turn limit").ShowDefault();
  sub.Arg("--max-tokens", flags.max_tokens,
          "longest response, tokens; without a configuration 14 for the "
          "compact prompts, else a quarter of --max-context up to 512");
  sub.Arg("--max-context", flags.max_context,
          "longest prompt and response, tokens; without a configuration "
          "160 for the compact prompts, else 2560 or what the model "
          "has");
  sub.Arg("--slots", flags.slots, "games played at once").ShowDefault();
  sub.Arg("--threads", flags.threads, "compute threads; 0: all cores");
  sub.Arg("--device", flags.device, "where the model runs: cpu or cuda")
      .ShowDefault();
  sub.Arg("--dtype", flags.dtype, "of the model: float32 or bfloat16")
      .ShowDefault();
}

std::string ModelFolder(const std::string& dir) {
  const std::filesystem::path inner = std::filesystem::path(dir) / "model";
  if (!std::filesystem::exists(std::filesystem::path(dir) / "config.json") &&
      std::filesystem::exists(inner / "config.json"))
    return inner.string();
  return dir;
}

absl::StatusOr<rollout::Panel> OpenPanel(const PanelFlags& flags) {
  ATOD_ASSIGN_OR_RETURN(v1::RunConfig config, ConfigOf(flags));
  if (!flags.out.empty()) {
    const std::filesystem::path out(flags.out);
    if (std::filesystem::is_directory(out))
      return BadInput({"", "--out", 0, absl::StrCat("folder ", flags.out),
                       "a file to write"});
    if (out.has_parent_path())
      ATOD_RETURN_IF_ERROR(MakeDirs(out.parent_path().string()));
    const std::string probe = flags.out + ".part";
    ATOD_RETURN_IF_ERROR(WriteFileAtomic(probe, ""));
    std::filesystem::remove(probe);
  }
  if (flags.choice.count == 0)
    return BadInput({"", "--count", 0, "0", "at least one game"});
  ATOD_ASSIGN_OR_RETURN(rollout::Panel panel,
                        rollout::OpenPanel(std::move(config), flags.choice));
  if (panel.tasks.empty()) {
    return BadInput({panel.config.env().data(), "--split", 0,
                     absl::StrCat("no game of ", panel.options.split),
                     "a sub-folder with games"});
  }
  if (flags.given.Has("--count") && panel.tasks.size() < flags.choice.count)
    LogWarning(absl::StrCat("--count: found ", flags.choice.count,
                            ", but split ", panel.options.split, " has ",
                            panel.tasks.size(), " games"));
  return panel;
}

bool FewErrors(const std::vector<rollout::EvalResult>& results,
               const rollout::Panel& panel) {
  const rollout::ErrorCount errors = rollout::CountErrors(results);
  if (errors.episodes == 0) return true;
  const std::string text =
      absl::StrCat(errors.episodes, " of ", results.size(),
                   " games ended in errors and are left out (", errors.kinds,
                   "); the first: ", errors.first);
  if (!TooManyErrors(errors.episodes, results.size(),
                     panel.config.env().max_error_share())) {
    LogWarning(text);
    return true;
  }
  std::fprintf(stderr, "error: %s\n", OneLine(text).c_str());
  return false;
}

}  // namespace atod::cli
