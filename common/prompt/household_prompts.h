#pragma once

#include "common/prompt/prompt_spec.h"

namespace atod {

// The paper's ALFWorld prompt (Appendix B.4, Figure 7). The paper prints none
// for the first turn: there it is the same text without the sentences about
// earlier steps.
PromptSpec PaperPromptSpec();

// A short prompt for tiny models: no chat template, no admissible list, no
// reasoning; the agent's memory stands in four lines that the environment
// keeps (fields holding, unchecked, checked, recent, text; lists by comma,
// without full stop). The prompt ends with ">", a response is " command" and
// the end token.
PromptSpec CompactPromptSpec();

}  // namespace atod
