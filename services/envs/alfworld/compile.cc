#include "services/envs/alfworld/compile.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::envs {
namespace {

constexpr size_t kMaxTypes = 1000;
// A precondition with more alternatives is tested as a whole.
constexpr size_t kMaxVariants = 64;
constexpr char kDomainField[] = "pddl_domain";
constexpr char kProblemField[] = "pddl_problem";

absl::Status Bad(const char* field, int line, std::string found,
                 std::string expected) {
  return BadInput({"", field, line, std::move(found), std::move(expected)});
}

using Kind = Condition::Kind;

// Compiles the conditions of one action or goal: owns its slots.
class Scope {
 public:
  Scope(const Vocabulary& vocabulary, const Facts& initial, const char* field)
      : vocabulary_(vocabulary), initial_(initial), field_(field) {}

  int num_slots() const { return static_cast<int>(slot_types_.size()); }
  int slot_type(int slot) const { return slot_types_[slot]; }

  int Declare(const PddlTypedName& var) {
    slot_types_.push_back(vocabulary_.FindType(var.type));
    names_.emplace_back(var.name, num_slots() - 1);
    return num_slots() - 1;
  }
  size_t Mark() const { return names_.size(); }
  void Forget(size_t mark) { names_.resize(mark); }

  absl::StatusOr<std::vector<Term>> Terms(const std::vector<std::string>& words,
                                          size_t from, int line) const {
    std::vector<Term> out;
    for (size_t i = from; i < words.size(); ++i) {
      if (words[i][0] != '?') {
        out.push_back(ObjectTerm(vocabulary_.FindObject(words[i])));
        continue;
      }
      const auto it = std::find_if(
          names_.rbegin(), names_.rend(),
          [&](const auto& name) { return name.first == words[i]; });
      if (it == names_.rend())
        return Bad(field_, line, absl::StrCat("'", words[i], "'"),
                   "a declared variable");
      out.push_back(it->second);
    }
    return out;
  }

  absl::StatusOr<int> AtomPredicate(const std::vector<std::string>& atom,
                                    int line) const {
    const int p = vocabulary_.FindPredicate(atom[0]);
    if (p < 0)
      return Bad(field_, line, absl::StrCat("'", atom[0], "'"),
                 "a declared predicate");
    if (vocabulary_.predicates[p].arity != static_cast<int>(atom.size()) - 1)
      return Bad(field_, line,
                 absl::StrCat(atom.size() - 1, " arguments of '", atom[0], "'"),
                 absl::StrCat(vocabulary_.predicates[p].arity));
    return p;
  }

  // Negation normal form; searches are not planned yet.
  absl::StatusOr<Condition> Normal(const PddlCondition& in, bool negate) {
    using Pddl = PddlCondition::Kind;
    Condition c;
    switch (in.kind) {
      case Pddl::kTrue:
        c.negated = negate;
        return c;
      case Pddl::kAtom: {
        c.kind = Kind::kAtom;
        c.negated = negate;
        ATOD_ASSIGN_OR_RETURN(c.predicate, AtomPredicate(in.atom, in.line));
        ATOD_ASSIGN_OR_RETURN(c.terms, Terms(in.atom, 1, in.line));
        return c;
      }
      case Pddl::kEqual: {
        c.kind = Kind::kEqual;
        c.negated = negate;
        ATOD_ASSIGN_OR_RETURN(c.terms, Terms(in.atom, 0, in.line));
        return c;
      }
      case Pddl::kNot:
        return Normal(in.parts[0], !negate);
      case Pddl::kAnd:
      case Pddl::kOr: {
        c.kind = (in.kind == Pddl::kAnd) != negate ? Kind::kAll : Kind::kAny;
        for (const PddlCondition& part : in.parts) {
          ATOD_ASSIGN_OR_RETURN(Condition p, Normal(part, negate));
          c.parts.push_back(std::move(p));
        }
        return c;
      }
      case Pddl::kExists:
      case Pddl::kForAll: {
        // forall x: p  is  not exists x: not p.
        const bool for_all = in.kind == Pddl::kForAll;
        c.kind = Kind::kExists;
        c.negated = for_all != negate;
        const size_t mark = Mark();
        for (const PddlTypedName& var : in.vars)
          c.slots.push_back(Declare(var));
        ATOD_ASSIGN_OR_RETURN(Condition body, Normal(in.parts[0], for_all));
        c.parts.push_back(std::move(body));
        Forget(mark);
        return c;
      }
    }
    return c;
  }

  static void FreeSlots(const Condition& c, std::set<int>& out) {
    for (const Term t : c.terms)
      if (t >= 0) out.insert(t);
    for (const Condition& part : c.parts) FreeSlots(part, out);
    for (const int slot : c.slots) out.erase(slot);
  }

  // Splits a condition into conjuncts; existential variables join `slots`.
  static void Flatten(Condition c, std::vector<Condition>& conjuncts,
                      std::vector<int>& slots) {
    if (c.kind == Kind::kTrue && !c.negated) return;
    if (c.kind == Kind::kExists && !c.negated) {
      slots.insert(slots.end(), c.slots.begin(), c.slots.end());
      Flatten(std::move(c.parts[0]), conjuncts, slots);
    } else if (c.kind == Kind::kAll) {
      for (Condition& part : c.parts)
        Flatten(std::move(part), conjuncts, slots);
    } else if (c.kind == Kind::kAny && c.parts.size() == 1) {
      Flatten(std::move(c.parts[0]), conjuncts, slots);
    } else {
      conjuncts.push_back(std::move(c));
    }
  }

  // The order in which to bind `slots` so that all conjuncts hold: tests as
  // soon as they can be made, then the relation that is expected to offer the
  // fewest rows.
  std::vector<SearchStep> Plan(std::vector<int> slots,
                               std::vector<Condition> conjuncts,
                               std::set<int> bound) {
    std::vector<SearchStep> steps;
    std::stable_sort(conjuncts.begin(), conjuncts.end(),
                     [](const Condition& a, const Condition& b) {
                       return Weight(a) < Weight(b);
                     });
    for (;;) {
      for (size_t i = 0; i < conjuncts.size();) {
        if (!Covered(conjuncts[i], bound)) {
          ++i;
          continue;
        }
        SearchStep step;
        step.test.push_back(std::move(conjuncts[i]));
        Finish(step.test[0], bound);
        steps.push_back(std::move(step));
        conjuncts.erase(conjuncts.begin() + i);
      }
      const int best = Cheapest(conjuncts, bound);
      SearchStep step;
      if (best >= 0) {
        Condition& atom = conjuncts[best];
        step.kind = SearchStep::Kind::kMatch;
        step.predicate = atom.predicate;
        for (const Term term : atom.terms) {
          const bool fresh = term >= 0 && bound.insert(term).second;
          step.binds.push_back(fresh ? slot_types_[term] : SearchStep::kBound);
        }
        step.terms = std::move(atom.terms);
        conjuncts.erase(conjuncts.begin() + best);
      } else {
        const auto it = std::find_if(slots.begin(), slots.end(), [&](int slot) {
          return bound.count(slot) == 0;
        });
        if (it == slots.end()) break;
        step.kind = SearchStep::Kind::kObjects;
        step.slot = *it;
        step.type = slot_types_[*it];
        bound.insert(*it);
      }
      steps.push_back(std::move(step));
    }
    return steps;
  }

  // Plans the searches inside a condition whose free slots are bound.
  void Finish(Condition& c, const std::set<int>& bound) {
    if (c.kind == Kind::kExists) {
      std::vector<Condition> conjuncts;
      std::vector<int> slots = c.slots;
      Flatten(std::move(c.parts[0]), conjuncts, slots);
      c.parts.clear();
      c.steps = Plan(std::move(slots), std::move(conjuncts), bound);
      return;
    }
    for (Condition& part : c.parts) Finish(part, bound);
  }

  // Alternatives of a precondition. A disjunction is split up only when it
  // must bind a parameter.
  std::vector<std::vector<Condition>> Alternatives(
      std::vector<Condition> conjuncts, std::vector<int>& slots) const {
    std::set<int> bound;
    for (const Condition& c : conjuncts)
      if (c.kind == Kind::kAtom && !c.negated)
        for (const Term t : c.terms)
          if (t >= 0) bound.insert(t);
    std::vector<std::vector<Condition>> out;
    for (size_t i = 0; i < conjuncts.size(); ++i) {
      if (conjuncts[i].kind != Kind::kAny || Covered(conjuncts[i], bound))
        continue;
      for (const Condition& part : conjuncts[i].parts) {
        std::vector<Condition> rest(conjuncts);
        rest.erase(rest.begin() + i);
        Flatten(part, rest, slots);
        for (auto& alternative : Alternatives(std::move(rest), slots)) {
          out.push_back(std::move(alternative));
          if (out.size() > kMaxVariants) return {conjuncts};
        }
      }
      return out;
    }
    out.push_back(std::move(conjuncts));
    return out;
  }

 private:
  static int Weight(const Condition& c) {
    return c.kind == Kind::kAtom || c.kind == Kind::kEqual ? 0
           : c.kind == Kind::kExists                       ? 2
                                                           : 1;
  }

  static bool Covered(const Condition& c, const std::set<int>& bound) {
    std::set<int> free;
    FreeSlots(c, free);
    return std::includes(bound.begin(), bound.end(), free.begin(), free.end());
  }

  int Cheapest(const std::vector<Condition>& conjuncts,
               const std::set<int>& bound) const {
    int best = -1;
    double best_rows = 0;
    for (size_t i = 0; i < conjuncts.size(); ++i) {
      const Condition& c = conjuncts[i];
      if (c.kind != Kind::kAtom || c.negated || c.terms.empty()) continue;
      double rows = static_cast<double>(initial_.of(c.predicate).size());
      for (const Term t : c.terms)
        if (t < 0 || bound.count(t) > 0) rows /= 8;
      if (best < 0 || rows < best_rows) {
        best = static_cast<int>(i);
        best_rows = rows;
      }
    }
    return best;
  }

  const Vocabulary& vocabulary_;
  const Facts& initial_;
  const char* const field_;
  std::vector<int> slot_types_;
  std::vector<std::pair<std::string, int>> names_;
};

absl::StatusOr<Action> CompileAction(const PddlAction& in,
                                     const Vocabulary& vocabulary,
                                     const Facts& initial) {
  Scope scope(vocabulary, initial, kDomainField);
  Action action;
  action.name = in.name;
  std::vector<int> slots;
  std::set<int> params;
  for (const PddlTypedName& param : in.params) {
    if (param.name[0] != '?')
      return Bad(kDomainField, in.line,
                 absl::StrCat("parameter '", param.name, "' of ", in.name),
                 "a name that starts with '?'");
    slots.push_back(scope.Declare(param));
    params.insert(slots.back());
    action.params.push_back(param.name.substr(1));
    action.param_types.push_back(scope.slot_type(slots.back()));
  }
  ATOD_ASSIGN_OR_RETURN(Condition condition,
                        scope.Normal(in.precondition, false));
  std::vector<Condition> conjuncts;
  Scope::Flatten(std::move(condition), conjuncts, slots);
  std::vector<std::vector<Condition>> alternatives =
      scope.Alternatives(std::move(conjuncts), slots);
  for (std::vector<Condition>& alternative : alternatives) {
    Variant variant;
    for (const Condition& c : alternative)
      if (c.kind == Kind::kAtom) variant.literals.push_back(c);
    // Variables of the other alternatives are not wanted here.
    std::vector<int> wanted(slots.begin(), slots.begin() + params.size());
    std::set<int> used;
    for (const Condition& c : alternative) Scope::FreeSlots(c, used);
    for (size_t i = params.size(); i < slots.size(); ++i)
      if (alternatives.size() == 1 || used.count(slots[i]) > 0)
        wanted.push_back(slots[i]);
    variant.steps = scope.Plan(wanted, std::move(alternative), {});
    action.variants.push_back(std::move(variant));
  }
  for (const PddlEffect& e : in.effects) {
    Effect effect;
    effect.add = e.add;
    const size_t mark = scope.Mark();
    std::vector<int> own;
    for (const PddlTypedName& var : e.vars) own.push_back(scope.Declare(var));
    ATOD_ASSIGN_OR_RETURN(effect.predicate,
                          scope.AtomPredicate(e.atom, e.line));
    ATOD_ASSIGN_OR_RETURN(effect.terms, scope.Terms(e.atom, 1, e.line));
    ATOD_ASSIGN_OR_RETURN(Condition when, scope.Normal(e.when, false));
    std::vector<Condition> parts;
    Scope::Flatten(std::move(when), parts, own);
    effect.steps = scope.Plan(own, std::move(parts), params);
    scope.Forget(mark);
    action.effects.push_back(std::move(effect));
  }
  action.num_slots = scope.num_slots();
  return action;
}

absl::Status CompileTypes(const PddlDomain& domain, Vocabulary& v,
                          std::vector<int>& parent) {
  auto type = [&](const std::string& name) {
    const auto [it, fresh] =
        v.type_index.try_emplace(name, static_cast<int>(v.types.size()));
    if (fresh) {
      v.types.push_back(name);
      parent.push_back(-1);
    }
    return it->second;
  };
  if (domain.types.size() > kMaxTypes)
    return Bad(kDomainField, 0, absl::StrCat(domain.types.size(), " types"),
               absl::StrCat("at most ", kMaxTypes));
  const int root = type("object");
  for (const PddlTypedName& t : domain.types) {
    const int child = type(t.name);
    const int above = type(t.type);
    if (child != root) parent[child] = above;
  }
  for (size_t t = 0; t < parent.size(); ++t) {
    if (static_cast<int>(t) != root && parent[t] < 0) parent[t] = root;
    size_t hops = 0;
    for (int p = static_cast<int>(t); p >= 0; p = parent[p])
      if (++hops > parent.size())
        return Bad(kDomainField, 0,
                   absl::StrCat("type '", v.types[t], "' below itself"),
                   "a tree of types");
  }
  return absl::OkStatus();
}

absl::Status CompileObjects(const PddlDomain& domain,
                            const PddlProblem& problem,
                            const std::vector<int>& parent, Vocabulary& v) {
  std::map<std::string, std::string> types;
  const auto add = [&](const PddlTypedName& o, const char* field) {
    if (types.emplace(o.name, o.type).second) return absl::OkStatus();
    return Bad(field, 0, absl::StrCat("object '", o.name, "' twice"),
               "each object once");
  };
  for (const PddlTypedName& o : domain.constants)
    ATOD_RETURN_IF_ERROR(add(o, kDomainField));
  for (const PddlTypedName& o : problem.objects)
    ATOD_RETURN_IF_ERROR(add(o, kProblemField));
  v.is_a.assign(v.types.size(), std::vector<uint8_t>(types.size(), 0));
  for (const auto& [id, type] : types) {
    const ObjectId object = static_cast<ObjectId>(v.objects.size());
    v.objects.push_back(id);
    v.object_index[id] = object;
    const int t = v.FindType(type);
    if (t < 0)
      return Bad(kProblemField, 0,
                 absl::StrCat("object '", id, "' of type '", type, "'"),
                 "a declared type");
    v.type_of.push_back(t);
    for (int p = t; p >= 0; p = parent[p]) v.is_a[p][object] = 1;
  }
  return absl::OkStatus();
}

absl::Status CompilePredicates(const PddlDomain& domain,
                               const std::vector<std::string>& recorded,
                               Vocabulary& v) {
  auto declare = [&](const std::string& name, int arity) {
    v.predicate_index.try_emplace(name, static_cast<int>(v.predicates.size()));
    Predicate predicate;
    predicate.name = name;
    predicate.arity = arity;
    v.predicates.push_back(predicate);
  };
  for (const PddlPredicate& p : domain.predicates) {
    if (v.predicate_index.contains(p.name))
      return Bad(kDomainField, 0,
                 absl::StrCat("predicate '", p.name, "' twice"),
                 "one declaration");
    if (p.arity > kMaxArity)
      return Bad(
          kDomainField, 0,
          absl::StrCat("predicate '", p.name, "' of ", p.arity, " arguments"),
          absl::StrCat("at most ", kMaxArity));
    declare(p.name, p.arity);
  }
  for (const PddlAction& action : domain.actions) {
    for (const PddlEffect& e : action.effects) {
      const int p = v.FindPredicate(e.atom[0]);
      if (p >= 0)
        (e.add ? v.predicates[p].added : v.predicates[p].deleted) = true;
    }
  }
  for (const std::string& name : recorded) {
    const int p = v.FindPredicate(name);
    const std::string record = absl::StrCat("not_", name);
    if (p < 0 || v.predicate_index.contains(record)) continue;
    v.predicates[p].recorded_as = static_cast<int>(v.predicates.size());
    declare(record, v.predicates[p].arity);
    v.predicates.back().added = true;
  }
  int fluents = 0;
  for (Predicate& p : v.predicates)
    if (p.added || p.deleted) p.fluent = fluents++;
  return absl::OkStatus();
}

absl::Status CompileInit(const PddlProblem& problem, CompiledGame& game) {
  const Vocabulary& v = game.vocabulary;
  for (const Predicate& p : v.predicates) {
    game.fixed.emplace_back(p.arity);
    if (p.fluent >= 0) game.initial.emplace_back(p.arity);
  }
  std::vector<std::vector<std::vector<ObjectId>>> rows(v.predicates.size());
  std::set<ObjectId> entities;
  for (size_t i = 0; i < problem.init.size(); ++i) {
    const std::vector<std::string>& atom = problem.init[i];
    const int line = problem.init_lines[i];
    const int p = v.FindPredicate(atom[0]);
    if (p < 0)
      return Bad(kProblemField, line, absl::StrCat("'", atom[0], "'"),
                 "a declared predicate");
    if (v.predicates[p].arity != static_cast<int>(atom.size()) - 1)
      return Bad(kProblemField, line,
                 absl::StrCat(atom.size() - 1, " arguments of '", atom[0], "'"),
                 absl::StrCat(v.predicates[p].arity));
    std::vector<ObjectId> args;
    for (size_t k = 1; k < atom.size(); ++k) {
      args.push_back(v.FindObject(atom[k]));
      if (args.back() == kNoObject)
        return Bad(kProblemField, line, absl::StrCat("'", atom[k], "'"),
                   "a declared object");
      entities.insert(args.back());
    }
    rows[p].push_back(std::move(args));
  }
  for (size_t p = 0; p < rows.size(); ++p) {
    // Ascending, so that every insertion is at the end.
    std::sort(rows[p].begin(), rows[p].end());
    const int fluent = v.predicates[p].fluent;
    Relation& relation = fluent < 0 ? game.fixed[p] : game.initial[fluent];
    for (const std::vector<ObjectId>& row : rows[p])
      relation.Insert(row.data());
  }
  game.entities.assign(entities.begin(), entities.end());
  return absl::OkStatus();
}

// A goal that asks for something: at least one atom, over what is declared.
// Counts the atoms.
absl::Status CheckGoal(const PddlCondition& c, const Vocabulary& v,
                       int& atoms) {
  using Pddl = PddlCondition::Kind;
  if (c.kind == Pddl::kAtom) ++atoms;
  if (c.kind == Pddl::kAtom || c.kind == Pddl::kEqual)
    for (size_t i = c.kind == Pddl::kAtom ? 1 : 0; i < c.atom.size(); ++i)
      if (c.atom[i][0] != '?' && v.FindObject(c.atom[i]) == kNoObject)
        return Bad(kProblemField, c.line,
                   absl::StrCat("'", c.atom[i], "' in the goal"),
                   "a declared object");
  for (const PddlTypedName& var : c.vars)
    if (v.FindType(var.type) < 0)
      return Bad(kProblemField, c.line,
                 absl::StrCat("'", var.name, " - ", var.type, "' in the goal"),
                 "a declared type");
  for (const PddlCondition& part : c.parts)
    ATOD_RETURN_IF_ERROR(CheckGoal(part, v, atoms));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CompiledGame> Compile(const PddlDomain& domain,
                                     const PddlProblem& problem,
                                     const std::vector<std::string>& recorded) {
  if (problem.domain != domain.name)
    return Bad(kProblemField, 0, absl::StrCat("(:domain ", problem.domain, ")"),
               absl::StrCat("(:domain ", domain.name, ")"));
  CompiledGame game;
  std::vector<int> parent;
  ATOD_RETURN_IF_ERROR(CompileTypes(domain, game.vocabulary, parent));
  ATOD_RETURN_IF_ERROR(
      CompileObjects(domain, problem, parent, game.vocabulary));
  ATOD_RETURN_IF_ERROR(CompilePredicates(domain, recorded, game.vocabulary));
  ATOD_RETURN_IF_ERROR(CompileInit(problem, game));
  const Facts initial(game.vocabulary, game.fixed, game.initial);
  for (const PddlAction& a : domain.actions) {
    ATOD_ASSIGN_OR_RETURN(Action action,
                          CompileAction(a, game.vocabulary, initial));
    game.actions.push_back(std::move(action));
  }
  int atoms = 0;
  ATOD_RETURN_IF_ERROR(CheckGoal(problem.goal, game.vocabulary, atoms));
  if (atoms == 0)
    return Bad(kProblemField, problem.goal.line, "a goal about nothing",
               "(:goal CONDITION)");
  Scope scope(game.vocabulary, initial, kProblemField);
  ATOD_ASSIGN_OR_RETURN(game.goal, scope.Normal(problem.goal, false));
  // As one search, so that conjuncts around quantifiers help to bind them.
  Condition all;
  all.kind = Kind::kExists;
  all.parts.push_back(std::move(game.goal));
  game.goal = std::move(all);
  scope.Finish(game.goal, {});
  game.goal_slots = scope.num_slots();
  return game;
}

}  // namespace atod::envs
