#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/envs/alfworld/condition.h"
#include "services/envs/alfworld/facts.h"
#include "services/envs/alfworld/pddl.h"

namespace atod::envs {

// One literal effect; `steps` enumerates its own variables and tests its own
// condition (empty for a plain effect).
struct Effect {
  bool add = true;
  int predicate = -1;
  std::vector<Term> terms;
  std::vector<SearchStep> steps;
};

// One way to satisfy an action's precondition.
struct Variant {
  std::vector<SearchStep> steps;
  // Atoms that must be true, or false, whenever the variant applies.
  std::vector<Condition> literals;
};

struct Action {
  std::string name;
  std::vector<std::string> params;  // names without '?', slots 0, 1, …
  std::vector<int> param_types;
  int num_slots = 0;
  std::vector<Variant> variants;
  std::vector<Effect> effects;
};

// Domain and problem with every name resolved.
struct CompiledGame {
  Vocabulary vocabulary;
  std::vector<Relation> fixed;  // by predicate; empty where it is a fluent
  State initial;
  std::vector<Action> actions;
  Condition goal;
  int goal_slots = 0;
  // Objects of the initial facts, ascending: what the game shows.
  std::vector<ObjectId> entities;
};

// `recorded` are predicates whose deletions the text asks for ("not_NAME").
absl::StatusOr<CompiledGame> Compile(const PddlDomain& domain,
                                     const PddlProblem& problem,
                                     const std::vector<std::string>& recorded);

}  // namespace atod::envs
