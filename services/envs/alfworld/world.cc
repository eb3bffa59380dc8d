#include "services/envs/alfworld/world.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::envs {
namespace {

// Of all actions in one state.
constexpr size_t kMaxOperators = 100'000;

std::string_view Strip(std::string_view text) {
  constexpr std::string_view kBlank = " \t\n\r\f\v";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

std::vector<ObjectId> Values(const std::vector<Term>& terms,
                             const Binding& binding) {
  std::vector<ObjectId> out;
  for (const Term term : terms) out.push_back(ValueOf(term, binding));
  return out;
}

}  // namespace

World::World(std::shared_ptr<const Game> game) : game_(std::move(game)) {}

Facts World::facts() const {
  const CompiledGame& compiled = game_->compiled();
  return Facts(compiled.vocabulary, compiled.fixed, state_);
}

absl::Status World::Reset() {
  state_ = game_->compiled().initial;
  feedback_ = game_->intro();
  last_admissible_ = false;
  Binding binding(game_->compiled().goal_slots);
  const Facts now = facts();
  won_ = atod::envs::Holds(game_->compiled().goal, now, binding);
  ATOD_RETURN_IF_ERROR(now.Searchable());
  return FindOperators();
}

absl::Status World::Step(std::string_view command) {
  command = Strip(command);
  const auto it = std::lower_bound(
      operators_.begin(), operators_.end(), command,
      [](const Operator& op, std::string_view c) { return op.command < c; });
  last_admissible_ = it != operators_.end() && it->command == command;
  if (!last_admissible_) {
    feedback_ = "Nothing happens.";
    return absl::OkStatus();
  }
  const Operator op = *it;
  ATOD_RETURN_IF_ERROR(Apply(op));
  const Action& action = game_->compiled().actions[op.action];
  feedback_.clear();
  const Facts now = facts();
  std::vector<BoundVar> bound = Bound(action, op.args);
  ATOD_RETURN_IF_ERROR(
      TextWriter(game_->grammar(), game_->names(), now)
          .Write(game_->grammar().actions.at(action.name).feedback, bound,
                 feedback_));
  Binding binding(game_->compiled().goal_slots);
  won_ = atod::envs::Holds(game_->compiled().goal, now, binding);
  ATOD_RETURN_IF_ERROR(now.Searchable());
  return FindOperators();
}

std::vector<BoundVar> World::Bound(const Action& action,
                                   const std::vector<ObjectId>& args) const {
  std::vector<BoundVar> bound;
  for (size_t i = 0; i < args.size(); ++i)
    bound.push_back({&action.params[i], action.param_types[i], args[i]});
  return bound;
}

absl::Status World::FindOperators() {
  const CompiledGame& compiled = game_->compiled();
  const Facts now = facts();
  operators_.clear();
  for (size_t a = 0; a < compiled.actions.size(); ++a) {
    const Action& action = compiled.actions[a];
    const GrammarText& command =
        game_->grammar().actions.at(action.name).command;
    absl::Status status;
    Binding binding(action.num_slots);
    for (const Variant& variant : action.variants) {
      Search(variant.steps, now, binding, [&] {
        if (!Changes(action, variant, binding)) return false;
        if (operators_.size() == kMaxOperators) {
          status =
              BadInput({.file = "",
                        .field = "pddl_domain",
                        .line = 0,
                        .found = absl::StrCat(
                            "an endless number of commands for ", action.name),
                        .expected = absl::StrCat("at most ", kMaxOperators)});
          return true;
        }
        Operator op;
        op.action = static_cast<int>(a);
        op.args.assign(binding.begin(), binding.begin() + action.params.size());
        std::vector<BoundVar> bound = Bound(action, op.args);
        status = TextWriter(game_->grammar(), game_->names(), now)
                     .Write(command, bound, op.command);
        operators_.push_back(std::move(op));
        return !status.ok();
      });
      ATOD_RETURN_IF_ERROR(status);
      ATOD_RETURN_IF_ERROR(now.Searchable());
    }
  }
  std::sort(operators_.begin(), operators_.end(),
            [](const Operator& x, const Operator& y) {
              return std::tie(x.command, x.action, x.args) <
                     std::tie(y.command, y.action, y.args);
            });
  operators_.erase(std::unique(operators_.begin(), operators_.end(),
                               [](const Operator& x, const Operator& y) {
                                 return x.command == y.command;
                               }),
                   operators_.end());
  admissible_.clear();
  for (const Operator& op : operators_) admissible_.push_back(op.command);
  return absl::OkStatus();
}

// An operator is dropped when none of its effects can ever change anything.
bool World::Changes(const Action& action, const Variant& variant,
                    const Binding& binding) const {
  const CompiledGame& compiled = game_->compiled();
  auto required = [&](int predicate, bool negated,
                      const std::vector<ObjectId>& args) {
    for (const Condition& c : variant.literals) {
      if (c.predicate == predicate && c.negated == negated &&
          Values(c.terms, binding) == args)
        return true;
    }
    return false;
  };
  for (const Effect& effect : action.effects) {
    if (!effect.steps.empty()) return true;
    const std::vector<ObjectId> args = Values(effect.terms, binding);
    if (std::find(args.begin(), args.end(), kNoObject) != args.end()) continue;
    const Predicate& predicate =
        compiled.vocabulary.predicates[effect.predicate];
    const bool initially =
        compiled.initial[predicate.fluent].Contains(args.data());
    if (effect.add) {
      const bool always = initially && !predicate.deleted;
      if (!always && !required(effect.predicate, false, args)) return true;
    } else {
      const bool never = !initially && !predicate.added;
      bool added_again = false;
      for (const Effect& other : action.effects)
        added_again |= other.add && other.steps.empty() &&
                       other.predicate == effect.predicate &&
                       Values(other.terms, binding) == args;
      if (!never && !added_again && !required(effect.predicate, true, args))
        return true;
    }
  }
  return false;
}

absl::Status World::Apply(const Operator& op) {
  const Vocabulary& vocabulary = game_->compiled().vocabulary;
  const Action& action = game_->compiled().actions[op.action];
  Binding binding(action.num_slots);
  std::copy(op.args.begin(), op.args.end(), binding.begin());
  using Fact = std::pair<int, std::vector<ObjectId>>;
  std::vector<Fact> added, deleted;
  const Facts before = facts();
  for (const Effect& effect : action.effects) {
    Search(effect.steps, before, binding, [&] {
      std::vector<ObjectId> args = Values(effect.terms, binding);
      if (std::find(args.begin(), args.end(), kNoObject) == args.end())
        (effect.add ? added : deleted)
            .emplace_back(effect.predicate, std::move(args));
      return false;
    });
  }
  ATOD_RETURN_IF_ERROR(before.Searchable());
  // An atom both added and deleted is added.
  for (const auto& [p, args] : deleted) {
    if (std::find(added.begin(), added.end(), Fact(p, args)) != added.end())
      continue;
    const Predicate& predicate = vocabulary.predicates[p];
    state_[predicate.fluent].Erase(args.data());
    if (predicate.recorded_as >= 0)
      state_[vocabulary.predicates[predicate.recorded_as].fluent].Insert(
          args.data());
  }
  for (const auto& [p, args] : added) {
    const Predicate& predicate = vocabulary.predicates[p];
    state_[predicate.fluent].Insert(args.data());
    if (predicate.recorded_as >= 0)
      state_[vocabulary.predicates[predicate.recorded_as].fluent].Erase(
          args.data());
  }
  return absl::OkStatus();
}

bool World::Holds(std::string_view predicate,
                  const std::vector<std::string>& ids) const {
  const Vocabulary& vocabulary = game_->compiled().vocabulary;
  const int p = vocabulary.FindPredicate(predicate);
  if (p < 0 || vocabulary.predicates[p].arity != static_cast<int>(ids.size()))
    return false;
  std::vector<ObjectId> args;
  for (const std::string& id : ids) args.push_back(vocabulary.FindObject(id));
  return facts().of(p).Contains(args.data());
}

std::vector<std::vector<std::string>> World::FactsOf(
    std::string_view predicate) const {
  const Vocabulary& vocabulary = game_->compiled().vocabulary;
  std::vector<std::vector<std::string>> out;
  const int p = vocabulary.FindPredicate(predicate);
  if (p < 0) return out;
  const Relation& relation = facts().of(p);
  for (size_t i = 0; i < relation.size(); ++i) {
    out.emplace_back();
    for (int k = 0; k < relation.arity(); ++k)
      out.back().push_back(vocabulary.objects[relation.row(i)[k]]);
  }
  return out;
}

}  // namespace atod::envs
