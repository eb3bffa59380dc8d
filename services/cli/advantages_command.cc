#include "services/cli/advantages_command.h"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "services/cli/command.h"
#include "services/learner/algorithm/advantages_json.h"
#include "services/learner/recipe_of.h"

namespace atod::cli {

void AddAdvantagesCommand(Command app) {
  struct Flags {
    std::string input;
    int step = 0;
    std::vector<std::string> config;
    std::string recipe;
    std::string profile;
    std::vector<std::string> sets;
  };
  auto flags = std::make_shared<Flags>();
  Command sub = app.Add(
      "advantages",
      "Compute advantages of recorded log-probs as the learner does",
      [flags]() -> absl::StatusOr<int> {
        std::vector<std::string> sets;
        if (!flags->recipe.empty())
          sets.push_back("algorithm.recipe=" + flags->recipe);
        if (!flags->profile.empty())
          sets.push_back("algorithm.profile=" + flags->profile);
        sets.insert(sets.end(), flags->sets.begin(), flags->sets.end());
        ATOD_ASSIGN_OR_RETURN(const config::LoadedConfig loaded,
                              config::LoadRunConfig(flags->config, sets));
        ATOD_ASSIGN_OR_RETURN(const learner::Recipe recipe,
                              learner::RecipeOf(loaded.config.algorithm()));
        ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(flags->input));
        ATOD_ASSIGN_OR_RETURN(
            const std::string line,
            learner::AdvantagesOfJson(text, flags->input, recipe, flags->step,
                                      loaded.config.seed()));
        std::printf("%s\n", line.c_str());
        return 0;
      });
  sub.Arg("--input", flags->input, "Batch of trajectories, JSON").Required();
  sub.Arg("--step", flags->step, "Step s, counted from 1").Required();
  sub.ConfigFlags(flags->config, flags->sets);
  sub.Arg("--recipe", flags->recipe, "Recipe, docs/recipes");
  sub.Arg("--profile", flags->profile, "paper, default or released");
}

}  // namespace atod::cli
