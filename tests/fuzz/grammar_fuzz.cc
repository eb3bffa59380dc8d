// Text grammars (twl2).
#include "services/envs/alfworld/grammar.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto grammar = atod::envs::ParseGrammar(atod::Text(data, size));
  if (!grammar.ok()) return 0;
  std::vector<std::string> actions;
  for (const auto& [name, action] : grammar->actions) actions.push_back(name);
  atod::envs::CheckGrammar(*grammar, actions).IgnoreError();
  atod::envs::RecordedPredicates(*grammar);
  return 0;
}
