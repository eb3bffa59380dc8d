#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"
#include "services/learner/algorithm/recipe.h"
#include "services/learner/coordinator.h"
#include "services/learner/skill_bank.h"
#include "services/learner/step_settings.h"
#include "services/learner/stored_episodes.h"
#include "services/learner/task_directory.h"

namespace atod::learner {

// What a step gives out to be played: its tasks, from the environment servers,
// as leases, shaped by curriculum and context of the recipe. Not thread-safe.
class StepOrders {
 public:
  // Asks for the splits and reads the files that the recipe needs. Nothing is
  // owned; a panel that is smaller than configured is warned of.
  static absl::StatusOr<std::unique_ptr<StepOrders>> Open(
      const v1::RunConfig& config, const Recipe& recipe, TaskDirectory& tasks);

  // To be played with `version`, in canonical order.
  absl::StatusOr<std::vector<GroupOrder>> Training(
      const StepSettings& settings, const v1::WeightVersion& version) const;
  // The panel, one sample a task.
  absl::StatusOr<std::vector<GroupOrder>> Evaluation(
      const StepSettings& settings, const v1::WeightVersion& version) const;

  const std::string& train_hash() const { return train_.content_hash(); }
  const std::string& panel_hash() const { return panel_hash_; }
  // Whose scores train; empty: none needed.
  const std::string& teacher() const { return teacher_; }

 private:
  StepOrders(const v1::RunConfig& config, const Recipe& recipe,
             TaskDirectory& tasks)
      : config_(config), recipe_(recipe), tasks_(tasks) {}
  absl::Status OpenPanel();
  absl::Status ReadFiles();
  // Curriculum and context.
  absl::Status Shape(const StepSettings& settings, const v1::Task& task,
                     v1::Lease& lease) const;

  const v1::RunConfig& config_;
  const Recipe& recipe_;
  TaskDirectory& tasks_;
  v1::Split train_, panel_split_;
  std::vector<uint32_t> panel_;
  std::string panel_hash_, teacher_;
  std::optional<StoredEpisodes> episodes_;  // prefixes of B2F
  std::optional<SkillBank> skills_;         // contexts of SDAR
};

}  // namespace atod::learner
