#include "services/rollout/engine_options.h"

#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/model/model_folder.h"

namespace atod::rollout {

static_assert(kMinTemperature == static_cast<float>(config::kMinTemperature));

absl::Status CheckPrompts(const v1::EnvConfig& env,
                          const Tokenizer& tokenizer) {
  // The only set that is no chat.
  if (env.prompt_set() == "compact") return absl::OkStatus();
  return tokenizer.template_status();
}

absl::StatusOr<EngineOptions> EngineOptionsOf(const v1::RunConfig& config,
                                              const std::string& model_dir,
                                              const Tokenizer& tokenizer) {
  ATOD_RETURN_IF_ERROR(CheckPrompts(config.env(), tokenizer));
  EngineOptions options;
  options.model = {.dtype = config.model().dtype(),
                   .device = config.device(),
                   .max_slots = static_cast<int>(config.rollout().slots()),
                   .max_context = config.model().max_context(),
                   .deterministic = config.deterministic()};
  ATOD_ASSIGN_OR_RETURN(options.stop_tokens,
                        model::StopTokens(model_dir, tokenizer));
  return options;
}

}  // namespace atod::rollout
