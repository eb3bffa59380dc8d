#pragma once

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "services/envs/environment.h"

namespace atod::envs {

// For tests: task "t" of split "train"; what it shows is every action so far
// ("t:a,b"); "win" wins; other tasks are NOT_FOUND. Texts are actions in
// angle brackets.
class FakeEnvironment : public Environment {
 public:
  FakeEnvironment() {
    description_.name = "fake";
    description_.splits = {{"train", 1, "hash"}};
    description_.default_max_turns = 10;
  }
  explicit FakeEnvironment(const std::string& hash) : FakeEnvironment() {
    description_.splits[0].content_hash = hash;
  }

  const EnvDescription& description() const override { return description_; }

  absl::StatusOr<TaskInfo> GetTask(std::string_view split,
                                   uint32_t index) const override {
    if (split != "train" || index > 0) return absl::NotFoundError("no task");
    return TaskInfo{"t", "category", "fake", "hash"};
  }

  absl::StatusOr<std::unique_ptr<Episode>> Start(
      const EpisodeOptions& options) const override {
    if (options.task_id != "t") return absl::NotFoundError("no task");
    return std::unique_ptr<Episode>(
        new FakeEpisode(options.max_turns > 0 ? options.max_turns : 10));
  }

 private:
  class FakeEpisode : public Episode {
   public:
    explicit FakeEpisode(uint32_t max_turns) : max_turns_(max_turns) {
      result_.observation.text = "t:";
      result_.observation.fields["seen"] = "nothing";
    }
    const Observation& observation() const override {
      return result_.observation;
    }
    StepResult StepText(std::string_view text) override {
      const bool valid = text.size() > 2 && text.front() == '<';
      return Play(valid ? text.substr(1, text.size() - 2) : text, valid);
    }
    StepResult StepAction(std::string_view action) override {
      return Play(action, true);
    }

   private:
    StepResult Play(std::string_view action, bool valid) {
      Observation& now = result_.observation;
      if (now.done) return result_;
      result_.executed_action = std::string(action);
      result_.action_valid = valid;
      result_.action_admissible = valid;
      ++now.turn_index;
      now.text += (now.turn_index > 1 ? "," : "") + result_.executed_action;
      now.success = action == "win";
      now.reward = now.success ? 1 : 0;
      now.done_reason = now.success                    ? DoneReason::kWon
                        : now.turn_index >= max_turns_ ? DoneReason::kLimit
                                                       : DoneReason::kNotDone;
      now.done = now.done_reason != DoneReason::kNotDone;
      return result_;
    }

    const uint32_t max_turns_;
    StepResult result_;
  };

  EnvDescription description_;
};

}  // namespace atod::envs
