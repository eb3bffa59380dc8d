#pragma once

#include <string>

#include "services/envs/environment.h"

namespace atod::games {

struct Step {
  std::string command;
  // The forgetful expert believes that it is done or has lost the thread; the
  // command is "look".
  bool gave_up = false;
};

// The expert's next command. It knows the commands, what appliances do and
// what usually fits where, and of this game only what the compact prompt says:
// `seen.task` and the fields holding, unchecked, checked, recent and text. It
// is a pure function of these, so that a model which reads the prompt can learn
// every one of its decisions.
//
// It visits unchecked receptacles in their order and opens what is closed,
// until it sees what it needs. A forgetful one leaves out the heart of the
// task: it delivers without heating, cooling or cleaning, stops after the first
// of two, reaches the lamp and does not use it, or carries a thing to its place
// and does not put it down; then it gives up.
Step Plan(const envs::Observation& seen, bool forgets);

}  // namespace atod::games
