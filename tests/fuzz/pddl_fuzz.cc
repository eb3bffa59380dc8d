// PDDL domains and problems, each read as both.
#include "services/envs/alfworld/pddl.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = atod::Text(data, size);
  atod::envs::ParsePddlDomain(text, "pddl_domain").status().IgnoreError();
  atod::envs::ParsePddlProblem(text, "pddl_problem").status().IgnoreError();
  return 0;
}
