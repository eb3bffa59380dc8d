#pragma once

#include <functional>
#include <string>

#include "common/base/clock.h"
#include "services/envs/env_caller.h"
#include "services/envs/episode_table.h"

namespace atod::envs {

// Environments in this process: every call runs, and calls `done`, before it
// returns. Episodes live until they are closed.
class LocalCaller : public EnvCaller {
 public:
  explicit LocalCaller(EnvironmentMap envs)
      : table_(std::move(envs), absl::InfiniteDuration(), &clock_) {}

  absl::StatusOr<EnvDescription> Describe(const std::string& env) override;
  void Reset(const ResetRequest& request,
             std::function<void(absl::StatusOr<ResetResult>)> done) override {
    done(table_.Reset(request));
  }
  void Step(const std::string& episode_id, uint32_t turn_index,
            const std::string& model_text,
            std::function<void(absl::StatusOr<StepResult>)> done) override {
    done(table_.Step(episode_id, turn_index, {.text = model_text}));
  }
  void Close(const std::string& episode_id) override {
    table_.Close({episode_id});
  }

 private:
  RealClock clock_;
  EpisodeTable table_;
};

}  // namespace atod::envs
