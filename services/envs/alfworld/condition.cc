#include "services/envs/alfworld/condition.h"

namespace atod::envs {
namespace {

bool AtomHolds(const Condition& c, const Facts& facts, const Binding& binding) {
  ObjectId args[kMaxArity];
  for (size_t i = 0; i < c.terms.size(); ++i) {
    args[i] = ValueOf(c.terms[i], binding);
    if (args[i] == kNoObject) return false;
  }
  return facts.of(c.predicate).Contains(args);
}

bool SearchFrom(const std::vector<SearchStep>& steps, size_t i,
                const Facts& facts, Binding& binding,
                absl::FunctionRef<bool()> found) {
  if (!facts.Spend()) return true;  // out of all loops
  if (i == steps.size()) return found();
  const SearchStep& step = steps[i];
  const Vocabulary& vocabulary = facts.vocabulary();
  switch (step.kind) {
    case SearchStep::Kind::kTest:
      return Holds(step.test[0], facts, binding) &&
             SearchFrom(steps, i + 1, facts, binding, found);
    case SearchStep::Kind::kObjects: {
      if (step.type < 0) return false;
      const std::vector<uint8_t>& members = vocabulary.is_a[step.type];
      for (size_t object = 0; object < members.size(); ++object) {
        if (members[object] == 0) continue;
        binding[step.slot] = static_cast<ObjectId>(object);
        if (SearchFrom(steps, i + 1, facts, binding, found)) return true;
      }
      return false;
    }
    case SearchStep::Kind::kMatch: {
      const Relation& relation = facts.of(step.predicate);
      std::pair<size_t, size_t> range{0, relation.size()};
      if (step.binds[0] == SearchStep::kBound)
        range = relation.RowsOf(ValueOf(step.terms[0], binding));
      for (size_t r = range.first; r < range.second; ++r) {
        const ObjectId* row = relation.row(r);
        bool match = true;
        for (size_t k = 0; match && k < step.terms.size(); ++k) {
          if (step.binds[k] == SearchStep::kBound) {
            match = ValueOf(step.terms[k], binding) == row[k];
          } else {
            match = vocabulary.IsA(row[k], step.binds[k]);
            binding[step.terms[k]] = row[k];
          }
        }
        if (match && SearchFrom(steps, i + 1, facts, binding, found))
          return true;
      }
      return false;
    }
  }
  return false;
}

}  // namespace

bool Holds(const Condition& c, const Facts& facts, Binding& binding) {
  switch (c.kind) {
    case Condition::Kind::kTrue:
      return !c.negated;
    case Condition::Kind::kAtom:
      return AtomHolds(c, facts, binding) != c.negated;
    case Condition::Kind::kEqual: {
      const ObjectId a = ValueOf(c.terms[0], binding);
      const ObjectId b = ValueOf(c.terms[1], binding);
      return (a == b && a != kNoObject) != c.negated;
    }
    case Condition::Kind::kAll:
      for (const Condition& part : c.parts)
        if (!Holds(part, facts, binding)) return false;
      return true;
    case Condition::Kind::kAny:
      for (const Condition& part : c.parts)
        if (Holds(part, facts, binding)) return true;
      return false;
    case Condition::Kind::kExists:
      return Search(c.steps, facts, binding, [] { return true; }) != c.negated;
  }
  return false;
}

bool Search(const std::vector<SearchStep>& steps, const Facts& facts,
            Binding& binding, absl::FunctionRef<bool()> found) {
  return SearchFrom(steps, 0, facts, binding, found);
}

}  // namespace atod::envs
