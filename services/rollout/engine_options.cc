#include "services/rollout/engine_options.h"

#include "common/base/status_macros.h"

namespace atod::rollout {

absl::Status CheckPrompts(const v1::EnvConfig& env,
                          const Tokenizer& tokenizer) {
  // The only set that is no chat.
  if (env.prompt_set() == "compact") return absl::OkStatus();
  return tokenizer.template_status();
}

absl::StatusOr<engine::EngineOptions> EngineOptionsOf(
    const v1::RunConfig& config, const Tokenizer& tokenizer) {
  ATOD_RETURN_IF_ERROR(CheckPrompts(config.env(), tokenizer));
  engine::EngineOptions options;
  options.model = {.dtype = config.model().dtype(),
                   .device = config.device(),
                   .deterministic = config.deterministic(),
                   .max_context = config.model().max_context()};
  options.max_slots = static_cast<int>(config.rollout().slots());
  options.kv_tokens = static_cast<int64_t>(config.rollout().kv_tokens());
  options.batch_tokens = config.rollout().batch_tokens();
  options.max_queue = config.rollout().slots();
  return options;
}

}  // namespace atod::rollout
