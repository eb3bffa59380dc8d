#pragma once

#include <string>
#include <string_view>

namespace atod::envs {

// What a model's response means as a command.
struct Projected {
  std::string action;
  bool valid = false;  // the response had the required format
};

// Responses of the prompt sets `paper` and `released`:
// "<think>…</think><action>COMMAND</action>". Lower-cases; without both action
// tags the action is the last 30 characters. Not consulted: what is admissible.
Projected ProjectTagged(std::string_view response);

// Responses of the prompt set `compact`: the bare command. Valid when it is
// one line that is not empty.
Projected ProjectBare(std::string_view response);

// By prompt set.
Projected Project(std::string_view prompt_set, std::string_view response);

}  // namespace atod::envs
