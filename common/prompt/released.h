#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/prompt/prompt_spec.h"

namespace atod {

// Folder of the compatibility data: $ATOD_COMPAT_DATA, else ../shared/data
// beside the working directory.
std::string CompatDataDir();

// The prompt set `released`: the templates of the authors' framework, read
// from DATA_DIR/verl-agent-prompts/prompts.json. `env` is alfworld, webshop
// or search. NOT_FOUND without the data, INVALID_ARGUMENT names file and
// field.
absl::StatusOr<PromptSpec> ReleasedPromptSpec(
    std::string_view env, const std::string& data_dir = CompatDataDir());

}  // namespace atod
