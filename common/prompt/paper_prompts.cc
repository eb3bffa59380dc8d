#include "common/prompt/paper_prompts.h"

#include "absl/strings/str_cat.h"

namespace atod {

PromptSpec PaperWebshopPromptSpec() {
  const char* const opening =
      "You are an expert autonomous agent operating in the WebShop e-commerce "
      "environment.\n"
      "Your task is to: {task_description}.\n";
  const char* const history =
      "Prior to this step, you have already taken {step_count} step(s). Below "
      "are the most recent {history_length} observations and the corresponding "
      "actions you took: {action_history}\n";
  const char* const turn =
      "You are now at step {current_step} and your current observation is: "
      "{current_observation}.\n"
      "Your admissible actions of the current situation are: [\n"
      "{admissible_actions}\n"
      "].\n"
      "\n"
      "Now it's your turn to take one action for the current step.";
  // Said once is enough where earlier turns are seen.
  const char* const form =
      "\n"
      "You should first reason step-by-step about the current situation, then "
      "think carefully which admissible action best advances the shopping "
      "goal. This reasoning process MUST be enclosed within <think> </think> "
      "tags.\n"
      "Once you've finished your reasoning, you should choose an admissible "
      "action for current step and present it within <action> </action> tags.";
  PromptSpec spec;
  spec.name = "paper";
  spec.first = absl::StrCat(opening, turn, form);
  spec.next = absl::StrCat(opening, history, turn, form);
  spec.grow = turn;
  spec.history_line =
      "[Observation {index}: '{observation}', Action {index}: '{action}']";
  spec.history_join = "\n";
  spec.window = 2;
  spec.overflow = PromptSpec::Overflow::kCutLeft;
  spec.admissible_item = "'{action}',";
  spec.admissible_join = "\n";
  spec.chat = true;
  spec.max_prompt_tokens = 4096;
  return spec;
}

PromptSpec PaperSearchPromptSpec() {
  const char* const opening =
      "You are an expert agent tasked with answering the given question "
      "step-by-step.\n"
      "Your question: {task_description}.\n"
      "\n";
  const char* const history =
      "Prior to this step, you have already taken {step_count} step(s). Below "
      "is the interaction history where <search> </search> wrapped your past "
      "search queries and <information> </information> wrapped the "
      "corresponding search results returned by the external search engine. "
      "History:\n"
      "{action_history}\n"
      "\n";
  const char* const turn =
      "Now it's your turn to respond for the current step.";
  const char* const form =
      "\n"
      "You should first conduct a reasoning process. This process MUST be "
      "enclosed within <think> </think> tags.\n"
      "After completing your reasoning, choose only one of the following "
      "actions (do not perform both):\n"
      "1. If you find you lack some knowledge, you MUST call a search engine "
      "to get more external information using format: <search> your query "
      "</search>.\n"
      "2. If you have enough knowledge to answer the question confidently, "
      "provide your final answer within <answer> </answer> tags, without "
      "detailed illustrations. For example, <answer>Beijing</answer>.";
  PromptSpec spec;
  spec.name = "paper";
  spec.first = absl::StrCat(opening, turn, form);
  spec.next = absl::StrCat(opening, history, turn, form);
  spec.grow = absl::StrCat("{current_observation}\n\n", turn);
  spec.history_line = "Step {index}:{action} {next_observation}\n";
  spec.history_join = "\n";
  spec.window = 4;
  spec.overflow = PromptSpec::Overflow::kCutLeft;
  spec.chat = true;
  spec.max_prompt_tokens = 4096;
  return spec;
}

}  // namespace atod
