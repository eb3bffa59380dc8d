#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "services/envs/alfworld/facts.h"

namespace atod::envs {

// Values of the variables of one action or goal, by slot.
// Predicates of more arguments are refused when a game is compiled.
inline constexpr int kMaxArity = 16;

using Binding = std::vector<ObjectId>;

// A slot (>= 0) or an object. Objects that the problem does not declare are
// kNoObject and equal nothing.
using Term = int32_t;
inline Term ObjectTerm(ObjectId object) { return -2 - object; }
inline ObjectId ValueOf(Term term, const Binding& binding) {
  return term >= 0 ? binding[term] : -2 - term;
}

struct Condition;

// One step of a search for values of slots.
struct SearchStep {
  enum class Kind {
    kMatch,    // over the rows of `predicate` that agree with what is bound
    kObjects,  // over all objects of the type of `slot`
    kTest,     // `test[0]` must hold
  };
  Kind kind = Kind::kTest;
  int predicate = -1;
  std::vector<Term> terms;
  // For each term: the type its slot takes when this step binds it, kBound
  // when it has a value already.
  std::vector<int> binds;
  int slot = -1;
  int type = -1;
  std::vector<Condition> test;

  static constexpr int kBound = -2;
};

// A closed-world condition in negation normal form.
struct Condition {
  enum class Kind { kTrue, kAtom, kEqual, kAll, kAny, kExists };
  Kind kind = Kind::kTrue;
  bool negated = false;  // every kind but kAll and kAny
  int predicate = -1;
  std::vector<Term> terms;
  std::vector<Condition> parts;
  std::vector<int> slots;         // kExists: what it quantifies
  std::vector<SearchStep> steps;  // kExists
};

bool Holds(const Condition& condition, const Facts& facts, Binding& binding);

// Calls `found` with every way to go through the steps, until it returns true.
// Returns whether it did. `binding` has a place for every slot.
bool Search(const std::vector<SearchStep>& steps, const Facts& facts,
            Binding& binding, absl::FunctionRef<bool()> found);

}  // namespace atod::envs
