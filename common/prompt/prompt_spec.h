#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace atod {

// A prompt as data; the environment ships it, the agent loop renders it.
//
// Templates are plain text with placeholders in braces; nothing else is
// special, and text that comes from the environment is never expanded again.
//   first, next:     {task_description} {current_observation}
//                    {admissible_actions} {step_count} {history_length}
//                    {action_history} {current_step} {field.NAME}
//   history_line:    {index} {observation} {action}
//   admissible_item: {action}
// step_count is the number of turns played, current_step that plus one, and
// history_length the number of records shown.
struct PromptSpec {
  enum class Overflow { kError, kCutLeft, kFirstTemplate };
  std::string name;
  std::string first;
  std::string next;
  std::string history_line;
  std::string history_join;
  uint32_t window = 2;
  Overflow overflow = Overflow::kError;
  std::string admissible_item;
  std::string admissible_join;
  std::vector<std::string> admissible_hidden;
  bool chat = false;
  uint32_t max_prompt_tokens = 0;
};

}  // namespace atod
