#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"
#include "common/engine/engine.h"
#include "common/tokenizer/tokenizer.h"

namespace atod::rollout {

// The one place that says how a student plays as `config` says: workers, eval,
// collect, diagnose and replay play alike. Refuses a model that the prompts of
// config.env cannot be rendered for.
absl::StatusOr<engine::EngineOptions> EngineOptionsOf(
    const v1::RunConfig& config, const Tokenizer& tokenizer);

// OK when the prompts of `env` can be rendered for the tokenizer's model: its
// chat template is a known one, or the prompts have no chat format. The error
// names the template's file.
absl::Status CheckPrompts(const v1::EnvConfig& env, const Tokenizer& tokenizer);

}  // namespace atod::rollout
