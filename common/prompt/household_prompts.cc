#include "common/prompt/household_prompts.h"

#include "absl/strings/str_cat.h"

namespace atod {

PromptSpec PaperPromptSpec() {
  const char* const opening =
      "You are an expert agent operating in the ALFRED Embodied Environment. "
      "Your task is to: {task_description}.\n";
  const char* const history =
      "Prior to this step, you have already taken {step_count} step(s). Below "
      "are the most recent {history_length} observations and the corresponding "
      "actions you took: {action_history}\n";
  const char* const turn =
      "You are now at step {current_step} and your current observation is: "
      "{current_observation}\n"
      "Your admissible actions of the current situation are: "
      "[[{admissible_actions}]].\n"
      "\n"
      "Now it's your turn to take an action.";
  // Said once is enough where earlier turns are seen.
  const char* const form =
      "\n"
      "You should first reason step-by-step about the current situation. This "
      "reasoning process MUST be enclosed within <think> </think> tags.\n"
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
  spec.admissible_item = "'{action}'";
  spec.admissible_join = "\n ";
  spec.admissible_hidden = {"help"};
  spec.chat = true;
  spec.max_prompt_tokens = 2048;
  return spec;
}

PromptSpec CompactPromptSpec() {
  PromptSpec spec;
  spec.name = "compact";
  spec.first =
      "Task: {task_description}\n"
      "Holding: {field.holding}.\n"
      "New: {field.unchecked}.\n"
      "Checked: {field.checked}.\n"
      "Last: {field.recent}.\n"
      "{field.text}\n"
      ">";
  spec.next = spec.first;
  spec.grow = "{field.text}\n>";
  spec.window = 0;
  spec.overflow = PromptSpec::Overflow::kError;
  return spec;
}

}  // namespace atod
