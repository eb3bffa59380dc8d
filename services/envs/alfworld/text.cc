#include "services/envs/alfworld/text.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::envs {
namespace {

// A grammar that needs more is taken to be endless.
constexpr int kMaxNesting = 100;
constexpr int kMaxExpansions = 100'000;
constexpr size_t kMaxBytes = 1 << 20;

absl::Status Bad(std::string found, std::string expected) {
  return BadInput({"", "grammar", 0, std::move(found), std::move(expected)});
}

void Resolve(const Vocabulary& vocabulary, GrammarQuery& query) {
  for (GrammarAtom& atom : query) {
    atom.predicate_index = vocabulary.FindPredicate(atom.predicate);
    if (atom.predicate_index >= 0 &&
        vocabulary.predicates[atom.predicate_index].arity !=
            static_cast<int>(atom.args.size()))
      atom.predicate_index = -1;
    for (GrammarArg& arg : atom.args)
      arg.type_index = vocabulary.FindType(arg.type);
  }
}

void Resolve(const Vocabulary& vocabulary, GrammarText& text) {
  for (GrammarSymbol& symbol : text) Resolve(vocabulary, symbol.query);
}

}  // namespace

void ResolveGrammar(const Vocabulary& vocabulary, Grammar& grammar) {
  for (auto& [symbol, rules] : grammar.rules) {
    for (GrammarRule& rule : rules) {
      Resolve(vocabulary, rule.condition);
      Resolve(vocabulary, rule.text);
    }
  }
  for (auto& [name, action] : grammar.actions) {
    Resolve(vocabulary, action.command);
    Resolve(vocabulary, action.feedback);
  }
}

bool TextWriter::Answer(const GrammarQuery& query, size_t i,
                        std::vector<BoundVar>& bound,
                        absl::FunctionRef<bool()> found) {
  if (!facts_.Spend()) return true;  // out of all loops
  if (i == query.size()) return found();
  const GrammarAtom& atom = query[i];
  if (atom.predicate_index < 0) return false;
  const Relation& relation = facts_.of(atom.predicate_index);
  auto value = [&](const GrammarArg& arg) {
    for (const BoundVar& var : bound)
      if (var.type == arg.type_index && *var.name == arg.name)
        return var.object;
    return kNoObject;
  };
  std::pair<size_t, size_t> range{0, relation.size()};
  if (!atom.args.empty()) {
    const ObjectId first = value(atom.args[0]);
    if (first != kNoObject) range = relation.RowsOf(first);
  }
  const size_t mark = bound.size();
  for (size_t r = range.first; r < range.second; ++r) {
    const ObjectId* row = relation.row(r);
    bool match = true;
    for (size_t k = 0; match && k < atom.args.size(); ++k) {
      const GrammarArg& arg = atom.args[k];
      const ObjectId known = value(arg);
      if (known != kNoObject) {
        match = known == row[k];
        continue;
      }
      match = facts_.vocabulary().IsA(row[k], arg.type_index) &&
              std::none_of(
                  bound.begin(), bound.end(),
                  [&](const BoundVar& var) { return var.object == row[k]; });
      if (match) bound.push_back({&arg.name, arg.type_index, row[k]});
    }
    if (match && Answer(query, i + 1, bound, found)) {
      bound.resize(mark);
      return true;
    }
    bound.resize(mark);
  }
  return false;
}

absl::Status TextWriter::Append(std::string_view text, std::string& out) {
  written_ += text.size();
  if (written_ > kMaxBytes)
    return Bad(absl::StrCat("a text of more than ", kMaxBytes, " bytes"),
               "rules that come to an end");
  out += text;
  return absl::OkStatus();
}

absl::Status TextWriter::Write(const GrammarText& text,
                               std::vector<BoundVar>& bound, std::string& out) {
  for (const GrammarSymbol& symbol : text) {
    switch (symbol.kind) {
      case GrammarSymbol::Kind::kText:
        ATOD_RETURN_IF_ERROR(Append(symbol.text, out));
        break;
      case GrammarSymbol::Kind::kRule:
        ATOD_RETURN_IF_ERROR(WriteRule(symbol.text, bound, out));
        break;
      case GrammarSymbol::Kind::kConditional:
      case GrammarSymbol::Kind::kList:
        ATOD_RETURN_IF_ERROR(WriteItems(symbol, bound, out));
        break;
    }
  }
  return absl::OkStatus();
}

absl::Status TextWriter::WriteRule(const std::string& symbol,
                                   std::vector<BoundVar>& bound,
                                   std::string& out) {
  const auto it = grammar_.rules.find(symbol);
  if (it == grammar_.rules.end())
    return Bad(absl::StrCat("#", symbol, "#"),
               "a symbol that some grammar block defines");
  if (depth_ >= kMaxNesting || ++expansions_ > kMaxExpansions)
    return Bad(absl::StrCat("endless text from #", symbol, "#"),
               "rules that come to an end");
  for (const GrammarRule& rule : it->second) {
    if (rule.has_condition &&
        !Answer(rule.condition, 0, bound, [] { return true; }))
      continue;
    ATOD_RETURN_IF_ERROR(facts_.Searchable());
    ATOD_RETURN_IF_ERROR(rule.error);
    ++depth_;
    const absl::Status status = Write(rule.text, bound, out);
    --depth_;
    return status;
  }
  return Bad(absl::StrCat("no rule of #", symbol, "# that applies"),
             "a rule without condition as the last");
}

absl::Status TextWriter::WriteItems(const GrammarSymbol& symbol,
                                    std::vector<BoundVar>& bound,
                                    std::string& out) {
  std::vector<std::string> items;
  absl::Status status;
  auto add = [&] {
    if (items.size() == size_t{kMaxExpansions}) {
      status = Bad("an endless list", "conditions with fewer answers");
      return true;
    }
    items.emplace_back();
    status = WriteItem(symbol, bound, items.back());
    return !status.ok();
  };
  if (symbol.has_query)
    Answer(symbol.query, 0, bound, add);
  else
    add();
  ATOD_RETURN_IF_ERROR(status);
  ATOD_RETURN_IF_ERROR(facts_.Searchable());
  const bool list = symbol.kind == GrammarSymbol::Kind::kList;
  if (list && items.empty()) return WriteRule("list_empty", bound, out);
  for (size_t i = 0; i < items.size(); ++i) {
    if (list && i > 0) {
      ATOD_RETURN_IF_ERROR(WriteRule(
          i + 1 < items.size() ? "list_separator" : "list_last_separator",
          bound, out));
    }
    out += items[i];
  }
  return absl::OkStatus();
}

absl::Status TextWriter::WriteItem(const GrammarSymbol& symbol,
                                   std::vector<BoundVar>& bound,
                                   std::string& out) {
  if (symbol.inner_rule) return WriteRule(symbol.text, bound, out);
  return WriteExpr(symbol.expr, bound, out);
}

absl::Status TextWriter::WriteExpr(const GrammarExpr& expr,
                                   const std::vector<BoundVar>& bound,
                                   std::string& out) {
  switch (expr.kind) {
    case GrammarExpr::Kind::kLiteral:
      return Append(expr.text, out);
    case GrammarExpr::Kind::kConcat:
      for (const GrammarExpr& part : expr.parts)
        ATOD_RETURN_IF_ERROR(WriteExpr(part, bound, out));
      return absl::OkStatus();
    case GrammarExpr::Kind::kFirstNonEmpty: {
      for (const GrammarExpr& part : expr.parts) {
        std::string text;
        ATOD_RETURN_IF_ERROR(WriteExpr(part, bound, text));
        if (text.empty()) continue;
        out += text;
        break;
      }
      return absl::OkStatus();
    }
    case GrammarExpr::Kind::kVariable:
      break;
  }
  const auto it =
      std::find_if(bound.rbegin(), bound.rend(),
                   [&](const BoundVar& var) { return *var.name == expr.text; });
  if (it == bound.rend())
    return Bad(absl::StrCat("{", expr.text, "} without a value"),
               "a parameter of the action or a variable of the query");
  switch (expr.attribute) {
    case GrammarExpr::Attribute::kName:
      return Append(names_[it->object].name, out);
    case GrammarExpr::Attribute::kId:
      return Append(names_[it->object].id, out);
    case GrammarExpr::Attribute::kIndefinite:
      out += "a";
      break;
    case GrammarExpr::Attribute::kDefinite:
      out += "the";
      break;
  }
  return absl::OkStatus();
}

}  // namespace atod::envs
