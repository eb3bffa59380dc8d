#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace atod::envs {

// A parsed text grammar ("twl2"): what commands look like and what the world
// says. Text is generated from rules "symbol: right-hand sides", where each
// right-hand side may carry a condition on the facts.

struct GrammarArg {
  std::string name;
  std::string type;
  int type_index = -1;  // set by ResolveGrammar
};

struct GrammarAtom {
  std::string predicate;
  std::vector<GrammarArg> args;
  int predicate_index = -1;  // set by ResolveGrammar
};

using GrammarQuery = std::vector<GrammarAtom>;

// {v}, {v.name}, {a + ' ' + b}, {a or b}: a tree over variables and literals.
struct GrammarExpr {
  enum class Kind { kLiteral, kVariable, kConcat, kFirstNonEmpty };
  enum class Attribute { kName, kId, kIndefinite, kDefinite };
  Kind kind = Kind::kLiteral;
  std::string text;  // literal or variable name
  Attribute attribute = Attribute::kName;
  std::vector<GrammarExpr> parts;
};

struct GrammarSymbol {
  enum class Kind {
    kText,         // `text`
    kRule,         // #text#
    kConditional,  // {rule or expr | query}: one item for every answer
    kList,         // the same, joined by the list rules
  };
  Kind kind = Kind::kText;
  std::string text;
  bool inner_rule = false;  // the conditional holds rule `text`, not `expr`
  GrammarExpr expr;
  bool has_query = false;
  GrammarQuery query;
};

using GrammarText = std::vector<GrammarSymbol>;

struct GrammarRule {
  bool has_condition = false;
  GrammarQuery condition;
  GrammarText text;
  // Why `text` could not be parsed; matters only if the rule is used.
  absl::Status error;
};

struct GrammarAction {
  GrammarText command;
  GrammarText feedback;
};

struct Grammar {
  std::map<std::string, std::vector<GrammarRule>> rules;
  std::map<std::string, GrammarAction> actions;  // by lower-case name
};

// Errors name field "grammar" and the line inside the text.
absl::StatusOr<Grammar> ParseGrammar(std::string_view text);

// Checks every rule that `intro` and the named actions can reach.
absl::Status CheckGrammar(const Grammar& grammar,
                          const std::vector<std::string>& actions);

// Predicates p for which some query asks "not_p".
std::vector<std::string> RecordedPredicates(const Grammar& grammar);

}  // namespace atod::envs
