#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace atod::envs {

// The PDDL subset of household games (types, conditional and quantified
// conditions and effects, closed world), as text trees. All names are lower
// case. Numeric fluents are read and dropped.

struct PddlTypedName {
  std::string name;
  std::string type;  // "object" when the text gives none
};

struct PddlCondition {
  enum class Kind { kTrue, kAtom, kEqual, kAnd, kOr, kNot, kExists, kForAll };
  Kind kind = Kind::kTrue;
  std::vector<std::string> atom;     // kAtom: predicate, terms; kEqual: terms
  std::vector<PddlTypedName> vars;   // kExists, kForAll
  std::vector<PddlCondition> parts;  // kAnd, kOr: any; kNot, kExists,
                                     // kForAll: one
  int line = 0;
};

// One literal effect with the quantifiers and conditions around it.
struct PddlEffect {
  std::vector<PddlTypedName> vars;
  PddlCondition when;
  bool add = true;
  std::vector<std::string> atom;
  int line = 0;
};

struct PddlAction {
  std::string name;
  std::vector<PddlTypedName> params;
  PddlCondition precondition;
  std::vector<PddlEffect> effects;
  int line = 0;
};

struct PddlPredicate {
  std::string name;
  int arity = 0;
};

struct PddlDomain {
  std::string name;
  std::vector<PddlTypedName> types;  // `type` is the parent
  std::vector<PddlPredicate> predicates;
  std::vector<PddlTypedName> constants;
  std::vector<PddlAction> actions;
};

struct PddlProblem {
  std::string domain;
  std::vector<PddlTypedName> objects;
  std::vector<std::vector<std::string>> init;
  std::vector<int> init_lines;
  PddlCondition goal;
};

// Errors name `field` and the line inside the text.
absl::StatusOr<PddlDomain> ParsePddlDomain(std::string_view text,
                                           const std::string& field);
absl::StatusOr<PddlProblem> ParsePddlProblem(std::string_view text,
                                             const std::string& field);

}  // namespace atod::envs
