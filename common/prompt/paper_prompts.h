#pragma once

#include "common/prompt/prompt_spec.h"

namespace atod {

// The paper's prompts for WebShop and Search (Appendix B.4, Figures 9 and 8);
// ALFWorld's is PaperPromptSpec in household_prompts.h. First turns leave out
// what is said about earlier steps.
PromptSpec PaperWebshopPromptSpec();
PromptSpec PaperSearchPromptSpec();

}  // namespace atod
