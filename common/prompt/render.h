#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/prompt/prompt_spec.h"
#include "common/tokenizer/tokenizer.h"

namespace atod {

// One turn played: what the agent saw, and what it did then.
struct HistoryRecord {
  std::string observation;
  std::string action;
};

// What a prompt shows. `history` holds the turns played, oldest first; a prompt
// shows those of its window.
struct PromptInputs {
  std::string task;
  std::string observation;
  std::vector<std::string> admissible;
  std::map<std::string, std::string> fields;
  std::vector<HistoryRecord> history;
  uint32_t turn_index = 0;  // turns played so far
};

// INVALID_ARGUMENT names a template and a placeholder that it cannot hold.
absl::Status CheckPromptSpec(const PromptSpec& spec);

// INVALID_ARGUMENT when the spec has no template for the layout.
absl::Status CheckLayout(const PromptSpec& spec, std::string_view layout);

// The user's text of a turn, before any chat template. Turn 0 uses `first`.
// RenderGrow: of a later turn in the growing layout.
std::string RenderGrow(const PromptSpec& spec, const PromptInputs& inputs);
std::string RenderPrompt(const PromptSpec& spec, const PromptInputs& inputs);

struct FittedPrompt {
  std::vector<int32_t> tokens;
  uint32_t cut_tokens = 0;  // tokens of the full prompt that are missing
};

// The tokens of the turn's prompt, in the chat template when the spec says so,
// brought under `max_tokens` and the spec's own limit by its overflow policy:
//   kError          RESOURCE_EXHAUSTED with both lengths
//   kCutLeft        the last tokens
//   kFirstTemplate  rendered with `first`; RESOURCE_EXHAUSTED when that is too
//                   long as well
// INVALID_ARGUMENT when the model's own chat template is not one that is known
// (Tokenizer::template_status).
absl::StatusOr<FittedPrompt> FitPrompt(const PromptSpec& spec,
                                       const PromptInputs& inputs,
                                       const Tokenizer& tokenizer,
                                       uint32_t max_tokens);

// What the growing layout appends to an episode whose last token is `last` for
// its next response: the turn's `grow` text. In a chat that is a user message
// with the generation prompt, behind the end of the answer if `last` is not the
// token that ends one. Errors as FitPrompt, but of no length.
absl::StatusOr<std::vector<int32_t>> GrowPrompt(const PromptSpec& spec,
                                                const PromptInputs& inputs,
                                                const Tokenizer& tokenizer,
                                                int32_t last);

// The same prompt behind `context` and a line break, inside the chat template.
// When it is too long the history goes, record by record, then the turn is
// shown with `first`; the context never goes. RESOURCE_EXHAUSTED when even that
// is too long.
absl::StatusOr<FittedPrompt> FitContextPrompt(const PromptSpec& spec,
                                              const PromptInputs& inputs,
                                              const std::string& context,
                                              const Tokenizer& tokenizer,
                                              uint32_t max_tokens);

}  // namespace atod
