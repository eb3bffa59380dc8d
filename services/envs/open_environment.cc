#include "services/envs/open_environment.h"

#include <utility>

#include "common/base/status_macros.h"
#include "services/envs/alfworld/alfworld_environment.h"

namespace atod::envs {

absl::StatusOr<std::shared_ptr<const Environment>> OpenEnvironment(
    const v1::EnvConfig& config) {
  AlfworldOptions options;
  options.name = config.name();
  options.data = config.data();
  options.prompt_set = config.prompt_set();
  options.history_length = config.history_length();
  options.max_turns = config.max_turns();
  options.success_reward = config.success_reward();
  options.demangle = config.name() != "textworld";
  ATOD_ASSIGN_OR_RETURN(std::unique_ptr<AlfworldEnvironment> env,
                        AlfworldEnvironment::Open(options));
  return std::shared_ptr<const Environment>(std::move(env));
}

}  // namespace atod::envs
