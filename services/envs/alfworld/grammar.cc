#include "services/envs/alfworld/grammar.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace atod::envs {
namespace {

constexpr char kField[] = "grammar";
// Answering recurses over the conditions of a query.
constexpr size_t kMaxQuery = 100;

absl::Status Bad(int line, std::string_view found, std::string_view expected) {
  return BadInput(
      {"", kField, line, std::string(found), std::string(expected)});
}

std::string Quote(std::string_view text) {
  return absl::StrCat("'", std::string(text), "'");
}

std::string_view Strip(std::string_view text) {
  auto blank = [](char c) {
    return absl::ascii_isspace(static_cast<unsigned char>(c));
  };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

bool IsWord(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

// The pieces between `separator`s outside quotes and parentheses, stripped.
std::vector<std::string_view> SplitTop(std::string_view text,
                                       std::string_view separator) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  int depth = 0;
  char quote = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : ' ';
    if (i < text.size() && quote != 0) {
      if (c == quote) quote = 0;
      continue;
    }
    if (c == '\'' || c == '"') quote = c;
    if (c == '(') ++depth;
    if (c == ')') --depth;
    if (i == text.size() ||
        (depth == 0 && text.substr(i).starts_with(separator))) {
      out.push_back(Strip(text.substr(begin, i - begin)));
      begin = i + separator.size();
    }
  }
  return out;
}

// "p(a:t, b:u) & q(a:t)".
absl::StatusOr<GrammarQuery> ParseQuery(std::string_view text, int line) {
  GrammarQuery query;
  for (const std::string_view piece : SplitTop(text, "&")) {
    const size_t open = piece.find('(');
    if (open == std::string_view::npos || open == 0 || piece.back() != ')')
      return Bad(line, Quote(piece), "predicate(variable:type, …)");
    GrammarAtom atom;
    atom.predicate = std::string(Strip(piece.substr(0, open)));
    const std::string_view inside =
        Strip(piece.substr(open + 1, piece.size() - open - 2));
    if (!inside.empty()) {
      for (const std::string_view arg : SplitTop(inside, ",")) {
        const size_t colon = arg.find(':');
        if (colon == std::string_view::npos)
          return Bad(line, Quote(piece), "predicate(variable:type, …)");
        atom.args.push_back({std::string(Strip(arg.substr(0, colon))),
                             std::string(Strip(arg.substr(colon + 1)))});
      }
    }
    query.push_back(std::move(atom));
    if (query.size() > kMaxQuery)
      return Bad(line, absl::StrCat(query.size(), " conditions and more"),
                 absl::StrCat("at most ", kMaxQuery, " in one query"));
  }
  return query;
}

absl::StatusOr<GrammarExpr> ParseOperand(std::string_view text, int line) {
  GrammarExpr e;
  if (text.size() >= 2 && (text[0] == '\'' || text[0] == '"') &&
      text.back() == text[0]) {
    e.text = std::string(text.substr(1, text.size() - 2));
    return e;
  }
  const size_t dot = text.find('.');
  e.kind = GrammarExpr::Kind::kVariable;
  e.text = std::string(text.substr(0, dot));
  const std::string_view attribute =
      dot == std::string_view::npos ? "name" : text.substr(dot + 1);
  if (attribute == "name") {
    e.attribute = GrammarExpr::Attribute::kName;
  } else if (attribute == "id") {
    e.attribute = GrammarExpr::Attribute::kId;
  } else if (attribute == "indefinite") {
    e.attribute = GrammarExpr::Attribute::kIndefinite;
  } else if (attribute == "definite") {
    e.attribute = GrammarExpr::Attribute::kDefinite;
  } else {
    return Bad(line, Quote(text),
               "VARIABLE.name, .id, .indefinite or .definite");
  }
  if (e.text.empty() || !std::all_of(e.text.begin(), e.text.end(), IsWord))
    return Bad(line, Quote(text), "a variable or a quoted text");
  return e;
}

absl::StatusOr<GrammarExpr> ParseSum(std::string_view text, int line) {
  GrammarExpr sum;
  sum.kind = GrammarExpr::Kind::kConcat;
  for (const std::string_view piece : SplitTop(text, "+")) {
    ATOD_ASSIGN_OR_RETURN(GrammarExpr e, ParseOperand(piece, line));
    sum.parts.push_back(std::move(e));
  }
  if (sum.parts.size() == 1) return GrammarExpr(std::move(sum.parts[0]));
  return sum;
}

// "a + ' ' + b or c".
absl::StatusOr<GrammarExpr> ParseExpr(std::string_view text, int line) {
  GrammarExpr first;
  first.kind = GrammarExpr::Kind::kFirstNonEmpty;
  for (const std::string_view piece : SplitTop(text, " or ")) {
    ATOD_ASSIGN_OR_RETURN(GrammarExpr e, ParseSum(piece, line));
    first.parts.push_back(std::move(e));
  }
  if (first.parts.size() == 1) return GrammarExpr(std::move(first.parts[0]));
  return first;
}

class TextParser {
 public:
  TextParser(std::string_view text, int line) : text_(text), line_(line) {}

  absl::StatusOr<GrammarText> Parse() {
    GrammarText out;
    while (pos_ < text_.size() &&
           absl::ascii_isspace(static_cast<unsigned char>(text_[pos_])))
      ++pos_;
    for (;;) {
      while (Peek() == '\t') ++pos_;
      if (pos_ == text_.size()) return out;
      GrammarSymbol symbol;
      switch (Peek()) {
        case '#': {
          symbol.kind = GrammarSymbol::Kind::kRule;
          ATOD_ASSIGN_OR_RETURN(symbol.text, Tag());
          break;
        }
        case '{': {
          symbol.kind = GrammarSymbol::Kind::kConditional;
          ATOD_RETURN_IF_ERROR(Conditional(symbol));
          break;
        }
        case '[': {
          ++pos_;
          while (Peek() == '\t') ++pos_;
          symbol.kind = GrammarSymbol::Kind::kList;
          if (Peek() != '{') return Unexpected("'{' after '['");
          ATOD_RETURN_IF_ERROR(Conditional(symbol));
          while (Peek() == '\t') ++pos_;
          if (Peek() != ']') return Unexpected("']'");
          ++pos_;
          break;
        }
        case '"': {
          const size_t end = text_.find('"', pos_ + 1);
          if (end == std::string_view::npos) return Unexpected("a second '\"'");
          symbol.text = std::string(text_.substr(pos_ + 1, end - pos_ - 1));
          pos_ = end + 1;
          break;
        }
        default: {
          const size_t end =
              std::min(text_.find_first_of(";|\"<>[]#{}", pos_), text_.size());
          if (end == pos_) return Unexpected("text, #symbol#, {…} or [{…}]");
          symbol.text = std::string(text_.substr(pos_, end - pos_));
          pos_ = end;
        }
      }
      out.push_back(std::move(symbol));
    }
  }

 private:
  char Peek() const { return pos_ < text_.size() ? text_[pos_] : '\0'; }

  absl::Status Unexpected(std::string_view expected) const {
    return Bad(line_,
               pos_ == text_.size()
                   ? absl::StrCat("the end of ", Quote(text_))
                   : absl::StrCat("'", std::string(1, text_[pos_]), "' at ",
                                  pos_, " of ", Quote(text_)),
               expected);
  }

  // At '#'.
  absl::StatusOr<std::string> Tag() {
    const size_t end = text_.find('#', pos_ + 1);
    if (end == std::string_view::npos || end == pos_ + 1)
      return Unexpected("#symbol#");
    const std::string tag(text_.substr(pos_ + 1, end - pos_ - 1));
    pos_ = end + 1;
    return tag;
  }

  // At '{'.
  absl::Status Conditional(GrammarSymbol& symbol) {
    const size_t end = text_.find('}', pos_);
    if (end == std::string_view::npos) return Unexpected("a closing '}'");
    std::string_view inside = text_.substr(pos_ + 1, end - pos_ - 1);
    if (inside.find_first_of("{[]\n") != std::string_view::npos)
      return Unexpected("{expression | conditions}");
    const size_t bar = inside.find('|');
    const std::string_view head = Strip(inside.substr(0, bar));
    if (bar != std::string_view::npos) {
      symbol.has_query = true;
      ATOD_ASSIGN_OR_RETURN(symbol.query,
                            ParseQuery(inside.substr(bar + 1), line_));
    }
    if (head.size() > 2 && head.front() == '#' && head.back() == '#') {
      symbol.inner_rule = true;
      symbol.text = std::string(head.substr(1, head.size() - 2));
    } else {
      ATOD_ASSIGN_OR_RETURN(symbol.expr, ParseExpr(head, line_));
    }
    pos_ = end + 1;
    return absl::OkStatus();
  }

  const std::string_view text_;
  const int line_;
  size_t pos_ = 0;
};

absl::StatusOr<GrammarText> ParseText(std::string_view raw, int line) {
  const std::string text = absl::StrReplaceAll(
      absl::string_view(raw.data(), raw.size()), {{"\\n", "\n"}});
  return TextParser(text, line).Parse();
}

// The blocks and actions of a whole file.
class FileParser {
 public:
  explicit FileParser(std::string_view text) : text_(text) {}

  absl::StatusOr<Grammar> Parse() {
    for (;;) {
      SkipBlank();
      if (pos_ == text_.size()) return std::move(grammar_);
      const int line = line_;
      const std::string word = Word();
      if (word == "grammar") {
        ATOD_RETURN_IF_ERROR(RulesBlock());
      } else if (word == "action") {
        ATOD_RETURN_IF_ERROR(Action());
      } else {
        return Bad(line, Found(word), "'grammar' or 'action'");
      }
    }
  }

 private:
  void Advance(size_t n) {
    line_ += static_cast<int>(
        std::count(text_.begin() + pos_, text_.begin() + pos_ + n, '\n'));
    pos_ += n;
  }

  void SkipBlank() {
    while (pos_ < text_.size()) {
      if (text_[pos_] == '#') {
        Advance(std::min(text_.find('\n', pos_), text_.size()) - pos_);
      } else if (absl::ascii_isspace(static_cast<unsigned char>(text_[pos_]))) {
        Advance(1);
      } else {
        return;
      }
    }
  }

  std::string Word() {
    SkipBlank();
    size_t end = pos_;
    while (end < text_.size() && IsWord(text_[end])) ++end;
    std::string word(text_.substr(pos_, end - pos_));
    Advance(end - pos_);
    return word;
  }

  std::string Found(const std::string& word) const {
    if (!word.empty()) return Quote(word);
    if (pos_ == text_.size()) return "the end of the text";
    return Quote(text_.substr(pos_, 1));
  }

  bool Take(std::string_view token) {
    SkipBlank();
    if (!text_.substr(pos_).starts_with(token)) return false;
    Advance(token.size());
    return true;
  }

  absl::Status Expect(std::string_view token) {
    if (Take(token)) return absl::OkStatus();
    return Bad(line_, Found(""), Quote(token));
  }

  // "…" or """…""", then an optional ';'. `line` is where the text begins.
  absl::StatusOr<std::string> String(int& line) {
    ATOD_RETURN_IF_ERROR(Expect("::"));
    SkipBlank();
    const int begin_line = line_;
    const std::string_view quote =
        text_.substr(pos_).starts_with("\"\"\"") ? "\"\"\"" : "\"";
    ATOD_RETURN_IF_ERROR(Expect(quote));
    line = line_;
    const size_t end = text_.find(quote, pos_);
    if (end == std::string_view::npos)
      return Bad(begin_line, "a text without end",
                 absl::StrCat("a closing ", std::string(quote)));
    std::string out(text_.substr(pos_, end - pos_));
    Advance(end + quote.size() - pos_);
    Take(";");
    return out;
  }

  absl::Status RulesBlock() {
    int line = 0;
    ATOD_ASSIGN_OR_RETURN(std::string block, String(line));
    // Lines that start with '#' are comments.
    bool at_start = true;
    for (size_t i = 0; i < block.size(); ++i) {
      if (at_start && block[i] == '#')
        for (; i < block.size() && block[i] != '\n'; ++i) block[i] = ' ';
      if (i == block.size()) break;
      at_start = block[i] == '\n' ||
                 (at_start && (block[i] == ' ' || block[i] == '\t'));
    }
    const absl::StatusOr<nlohmann::json> parsed = ParseJson(block, "");
    if (!parsed.ok()) {
      const int64_t inside = ProblemOf(parsed.status()).line;
      return Bad(line + static_cast<int>(std::max<int64_t>(inside, 1)) - 1,
                 "broken JSON in a grammar block", "an object of rules");
    }
    const nlohmann::json& json = *parsed;
    if (!json.is_object())
      return Bad(line, absl::StrCat("a JSON ", json.type_name()),
                 "an object of rules");
    for (const auto& [symbol, alternatives] : json.items())
      ATOD_RETURN_IF_ERROR(Rules(symbol, alternatives, line));
    return absl::OkStatus();
  }

  absl::Status Rules(const std::string& symbol, const nlohmann::json& list,
                     int line) {
    if (!list.is_array() || list.empty())
      return Bad(line, absl::StrCat("rule '", symbol, "' without a list"),
                 R"([{"rhs": …}, …])");
    std::vector<GrammarRule> rules;
    for (const nlohmann::json& entry : list) {
      if (!entry.is_object() || !entry.contains("rhs") ||
          !entry["rhs"].is_string())
        return Bad(line, absl::StrCat("rule '", symbol, "' without 'rhs'"),
                   R"({"rhs": TEXT})");
      GrammarRule rule;
      const auto condition = entry.find("condition");
      if (condition != entry.end() && condition->is_string() &&
          !condition->get_ref<const std::string&>().empty()) {
        rule.has_condition = true;
        absl::StatusOr<GrammarQuery> query =
            ParseQuery(condition->get_ref<const std::string&>(), line);
        if (query.ok())
          rule.condition = *std::move(query);
        else
          rule.error = query.status();
      }
      absl::StatusOr<GrammarText> text =
          ParseText(entry["rhs"].get_ref<const std::string&>(), line);
      if (text.ok())
        rule.text = *std::move(text);
      else
        rule.error = text.status();
      rules.push_back(std::move(rule));
    }
    grammar_.rules[symbol] = std::move(rules);
    return absl::OkStatus();
  }

  absl::Status Action() {
    const std::string name = absl::AsciiStrToLower(Word());
    if (name.empty()) return Bad(line_, Found(""), "the name of an action");
    ATOD_RETURN_IF_ERROR(Expect("{"));
    GrammarAction action;
    bool has_command = false, has_feedback = false;
    while (!Take("}")) {
      const int key_line = line_;
      const std::string key = Word();
      if (key == "grammar") {
        ATOD_RETURN_IF_ERROR(RulesBlock());
        continue;
      }
      if (key != "template" && key != "feedback" && key != "pddl")
        return Bad(key_line, Found(key),
                   "'template', 'feedback', 'pddl', 'grammar' or '}'");
      int line = 0;
      ATOD_ASSIGN_OR_RETURN(const std::string value, String(line));
      if (key == "pddl") continue;
      ATOD_ASSIGN_OR_RETURN(GrammarText text, ParseText(value, line));
      (key == "template" ? has_command : has_feedback) = true;
      (key == "template" ? action.command : action.feedback) = std::move(text);
    }
    if (!has_command || !has_feedback)
      return Bad(line_,
                 absl::StrCat("action '", name, "' without ",
                              has_command ? "feedback" : "template"),
                 "both template and feedback");
    grammar_.actions[name] = std::move(action);
    return absl::OkStatus();
  }

  const std::string_view text_;
  size_t pos_ = 0;
  int line_ = 1;
  Grammar grammar_;
};

absl::Status CheckTexts(const Grammar& grammar,
                        std::vector<const GrammarText*> texts) {
  std::set<std::string> seen;
  while (!texts.empty()) {
    const GrammarText& text = *texts.back();
    texts.pop_back();
    for (const GrammarSymbol& symbol : text) {
      if (symbol.kind == GrammarSymbol::Kind::kText) continue;
      if (symbol.kind != GrammarSymbol::Kind::kRule && !symbol.inner_rule)
        continue;
      if (!seen.insert(symbol.text).second) continue;
      const auto it = grammar.rules.find(symbol.text);
      if (it == grammar.rules.end())
        return Bad(0, absl::StrCat("#", symbol.text, "#"),
                   "a symbol that some grammar block defines");
      for (const GrammarRule& rule : it->second) {
        ATOD_RETURN_IF_ERROR(rule.error);
        texts.push_back(&rule.text);
      }
    }
  }
  return absl::OkStatus();
}

void Recorded(const GrammarQuery& query, std::set<std::string>& out) {
  for (const GrammarAtom& atom : query)
    if (atom.predicate.starts_with("not_"))
      out.insert(atom.predicate.substr(4));
}

void Recorded(const GrammarText& text, std::set<std::string>& out) {
  for (const GrammarSymbol& symbol : text) Recorded(symbol.query, out);
}

}  // namespace

absl::StatusOr<Grammar> ParseGrammar(std::string_view text) {
  return FileParser(text).Parse();
}

absl::Status CheckGrammar(const Grammar& grammar,
                          const std::vector<std::string>& actions) {
  GrammarSymbol intro;
  intro.kind = GrammarSymbol::Kind::kRule;
  intro.text = "intro";
  const GrammarText start = {intro};
  std::vector<const GrammarText*> texts = {&start};
  for (const std::string& name : actions) {
    const auto it = grammar.actions.find(name);
    if (it == grammar.actions.end())
      return Bad(0, absl::StrCat("no action '", name, "'"),
                 "a template for every action of the domain");
    texts.push_back(&it->second.command);
    texts.push_back(&it->second.feedback);
  }
  return CheckTexts(grammar, std::move(texts));
}

std::vector<std::string> RecordedPredicates(const Grammar& grammar) {
  std::set<std::string> out;
  for (const auto& [symbol, rules] : grammar.rules) {
    for (const GrammarRule& rule : rules) {
      Recorded(rule.condition, out);
      Recorded(rule.text, out);
    }
  }
  for (const auto& [name, action] : grammar.actions) {
    Recorded(action.command, out);
    Recorded(action.feedback, out);
  }
  return {out.begin(), out.end()};
}

}  // namespace atod::envs
