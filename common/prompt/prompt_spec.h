#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace atod {

// Sequence layouts: how the turns of an episode become sequences of tokens.
// Each is one, with a prompt of its own; or all are one that grows.
inline constexpr char kWindowed[] = "windowed";
inline constexpr char kGrowing[] = "growing";

// A prompt as data; the environment ships it, the agent loop renders it
// (render.h).
//
// Templates are plain text with placeholders in braces; nothing else is
// special, and text that comes from the environment is never expanded again.
//   first, next, grow: {task_description} {current_observation}
//                    {admissible_actions} {step_count} {history_length}
//                    {action_history} {current_step} {field.NAME}
//   history_line:    {index} {observation} {action} {next_observation}
//   admissible_item: {action}
// step_count is the number of turns played, current_step that plus one, and
// history_length the number of records shown. A record's observation is what
// the agent saw before its action, next_observation what the action brought;
// index counts turns from 1 over the episode. A field that the environment
// does not give is empty.
//
// In the windowed layout a later turn is a prompt of its own, of `next`; in the
// growing layout it follows what the episode has so far, with `grow`.
struct PromptSpec {
  enum class Overflow { kError, kCutLeft, kFirstTemplate };
  std::string name;
  std::string first;
  std::string next;
  std::string grow;  // empty: there is no growing layout
  std::string history_line;
  std::string history_join;
  uint32_t window = 2;
  Overflow overflow = Overflow::kError;
  std::string admissible_item;
  std::string admissible_join;
  std::vector<std::string> admissible_hidden;
  bool chat = false;
  uint32_t max_prompt_tokens = 0;  // 0: no limit
  // Longer prompts (in characters, before the chat template) use `first`; 0:
  // no limit. One of the authors' environments decides so.
  uint32_t max_prompt_chars = 0;
};

}  // namespace atod
