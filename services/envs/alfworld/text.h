#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "services/envs/alfworld/facts.h"
#include "services/envs/alfworld/grammar.h"

namespace atod::envs {

// How an object is called in text.
struct EntityName {
  std::string id;
  std::string name;
};

// A grammar variable with a value.
struct BoundVar {
  const std::string* name;
  int type;
  ObjectId object;
};

// Resolves predicate and type names of all queries.
void ResolveGrammar(const Vocabulary& vocabulary, Grammar& grammar);

// Generates text from grammar symbols over one set of facts. Queries are
// conjunctive: variables that `bound` holds (same name and type) keep their
// value, others take distinct objects, and answers come depth first in
// ascending order of the facts.
class TextWriter {
 public:
  TextWriter(const Grammar& grammar, const std::vector<EntityName>& names,
             const Facts& facts)
      : grammar_(grammar), names_(names), facts_(facts) {}

  // Appends to `out`. `bound` is left as it was.
  absl::Status Write(const GrammarText& text, std::vector<BoundVar>& bound,
                     std::string& out);
  // The text of one rule.
  absl::Status WriteRule(const std::string& symbol,
                         std::vector<BoundVar>& bound, std::string& out);

 private:
  absl::Status Append(std::string_view text, std::string& out);
  // Stops at the first `found` that returns true; returns whether one did.
  bool Answer(const GrammarQuery& query, size_t atom,
              std::vector<BoundVar>& bound, absl::FunctionRef<bool()> found);
  absl::Status WriteItems(const GrammarSymbol& symbol,
                          std::vector<BoundVar>& bound, std::string& out);
  absl::Status WriteItem(const GrammarSymbol& symbol,
                         std::vector<BoundVar>& bound, std::string& out);
  absl::Status WriteExpr(const GrammarExpr& expr,
                         const std::vector<BoundVar>& bound, std::string& out);

  const Grammar& grammar_;
  const std::vector<EntityName>& names_;
  const Facts& facts_;
  int depth_ = 0;
  int expansions_ = 0;
  size_t written_ = 0;  // bytes
};

}  // namespace atod::envs
