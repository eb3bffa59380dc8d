#include "services/envs/games/policies.h"

#include <map>
#include <vector>

#include "common/base/problem.h"
#include "services/envs/games/planner.h"

namespace atod::games {

std::string RandomPolicy::Act(const envs::Observation& seen) {
  std::map<std::string, std::vector<const std::string*>> verbs;
  for (const std::string& command : seen.admissible)
    verbs[command.substr(0, command.find(' '))].push_back(&command);
  if (verbs.empty()) return "look";
  auto verb = verbs.begin();
  std::advance(verb, rng_.Below(verbs.size()));
  return *verb->second[rng_.Below(verb->second.size())];
}

std::string PlannerPolicy::Act(const envs::Observation& seen) {
  return Plan(seen, /*forgets=*/false).command;
}

absl::StatusOr<std::unique_ptr<Policy>> MakePolicy(const std::string& name,
                                                   uint64_t seed) {
  if (name == "random") return std::make_unique<RandomPolicy>(seed);
  if (name == "planner") return std::make_unique<PlannerPolicy>();
  return BadInput({.file = "",
                   .field = "policy",
                   .found = name,
                   .expected = "random or planner"});
}

}  // namespace atod::games
