#include "services/envs/alfworld/pddl.h"

#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::envs {
namespace {

// Nesting beyond this is refused, so that no text exhausts the stack.
constexpr int kMaxDepth = 200;
// Conditions and effects of one action or goal. What is compiled from them
// recurses and copies.
constexpr int kMaxParts = 1000;

struct Node {
  std::string word;  // empty for a list
  std::vector<Node> items;
  int line = 0;
  bool list() const { return word.empty(); }
  // The first word of a list, "" when there is none.
  std::string_view head() const {
    return items.empty() ? std::string_view() : items[0].word;
  }
};

class Parser {
 public:
  Parser(std::string_view text, std::string field)
      : text_(text), field_(std::move(field)) {}

  absl::Status Error(int line, std::string found, std::string expected) const {
    return BadInput({"", field_, line, std::move(found), std::move(expected)});
  }

  // The one list that the text holds.
  absl::StatusOr<Node> Parse() {
    Next();
    ATOD_RETURN_IF_ERROR(lexical_);
    if (token_ != "(") return Error(line_, Quote(token_), "'('");
    ATOD_ASSIGN_OR_RETURN(Node root, ParseList(0));
    if (!token_.empty())
      return Error(line_, Quote(token_), "the end after the last ')'");
    return root;
  }

  static std::string Quote(std::string_view token) {
    return token.empty() ? "the end of the text"
                         : absl::StrCat("'", std::string(token), "'");
  }

 private:
  static bool Blank(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' ||
           c == '\v';
  }

  void Next() {
    for (; pos_ < text_.size(); ++pos_) {
      if (text_[pos_] == ';') {
        while (pos_ < text_.size() && text_[pos_] != '\n') ++pos_;
        if (pos_ == text_.size()) break;
      }
      if (text_[pos_] == '\n') ++next_line_;
      if (!Blank(text_[pos_])) break;
    }
    line_ = next_line_;
    const size_t begin = pos_;
    if (pos_ == text_.size()) {
      token_ = {};
      return;
    }
    if (text_[pos_] == '(' || text_[pos_] == ')') {
      token_ = text_.substr(pos_++, 1);
      return;
    }
    while (pos_ < text_.size()) {
      const char c = text_[pos_];
      if (Blank(c) || c == '(' || c == ')' || c == ';') break;
      // A blank is understood before every '?'.
      if (c == '?' && pos_ > begin) break;
      if (static_cast<unsigned char>(c) >= 0x80 && lexical_.ok())
        lexical_ =
            Error(line_, "a byte outside ASCII", "ASCII text outside comments");
      ++pos_;
    }
    token_ = text_.substr(begin, pos_ - begin);
  }

  // At '('.
  absl::StatusOr<Node> ParseList(int depth) {
    if (depth > kMaxDepth)
      return Error(line_, "lists nested too deeply",
                   absl::StrCat("at most ", kMaxDepth, " levels"));
    Node node;
    node.line = line_;
    Next();
    while (token_ != ")") {
      ATOD_RETURN_IF_ERROR(lexical_);
      if (token_.empty())
        return Error(line_, "the end of the text",
                     absl::StrCat("')' for the '(' of line ", node.line));
      if (token_ == "(") {
        ATOD_ASSIGN_OR_RETURN(Node item, ParseList(depth + 1));
        node.items.push_back(std::move(item));
      } else {
        Node item;
        item.word = absl::AsciiStrToLower(std::string(token_));
        item.line = line_;
        node.items.push_back(std::move(item));
        Next();
      }
    }
    Next();
    ATOD_RETURN_IF_ERROR(lexical_);
    return node;
  }

  const std::string_view text_;
  const std::string field_;
  size_t pos_ = 0;
  int next_line_ = 1;
  int line_ = 1;
  std::string_view token_;
  absl::Status lexical_;
};

// Turns nodes into domain and problem parts.
class Reader {
 public:
  explicit Reader(const Parser& parser) : parser_(parser) {}

  absl::Status Error(const Node& at, std::string expected) const {
    std::string found = Parser::Quote(at.word);
    if (at.list()) {
      found = at.head().empty()
                  ? "a list"
                  : absl::StrCat("(", std::string(at.head()), " …)");
    }
    return parser_.Error(at.line, found, std::move(expected));
  }

  // (define (WHAT NAME) …)
  absl::StatusOr<std::string> Header(const Node& root,
                                     std::string_view what) const {
    if (root.head() != "define" || root.items.size() < 2 ||
        root.items[1].head() != what || root.items[1].items.size() != 2)
      return Error(
          root, absl::StrCat("(define (", std::string(what), " NAME)", " …)"));
    return root.items[1].items[1].word;
  }

  absl::StatusOr<std::vector<std::string>> Words(const Node& node) const {
    if (!node.list()) return Error(node, "a list of names");
    std::vector<std::string> out;
    for (const Node& item : node.items) {
      if (item.list()) return Error(item, "a name");
      out.push_back(item.word);
    }
    return out;
  }

  // Refuses a section that stands twice: of two, one would be lost.
  absl::Status Once(const Node& root) const {
    std::set<std::string_view> seen;
    for (size_t i = 2; i < root.items.size(); ++i) {
      const Node& section = root.items[i];
      if (section.head() != ":action" && !seen.insert(section.head()).second)
        return parser_.Error(
            section.line,
            absl::StrCat("(", std::string(section.head()), " …) twice"),
            "each section once");
    }
    return absl::OkStatus();
  }

  // Items [from, end): names, each run followed by "- TYPE" or not.
  absl::StatusOr<std::vector<PddlTypedName>> TypedList(const Node& node,
                                                       size_t from) const {
    std::vector<PddlTypedName> out;
    size_t untyped = 0;
    for (size_t i = from; i < node.items.size(); ++i) {
      const Node& item = node.items[i];
      if (item.list()) return Error(item, "a name");
      if (item.word != "-") {
        out.push_back({item.word, "object"});
        continue;
      }
      if (++i == node.items.size() || node.items[i].list())
        return Error(item, "a type name after '-'");
      for (; untyped < out.size(); ++untyped)
        out[untyped].type = node.items[i].word;
    }
    return out;
  }

  absl::StatusOr<PddlCondition> Condition(const Node& node) {
    using Kind = PddlCondition::Kind;
    if (!node.list()) return Error(node, "a condition in parentheses");
    ATOD_RETURN_IF_ERROR(CountPart(node));
    PddlCondition c;
    c.line = node.line;
    if (node.items.empty()) return c;
    const std::string_view head = node.head();
    const size_t n = node.items.size();
    auto part = [&](size_t i) -> absl::Status {
      ATOD_ASSIGN_OR_RETURN(PddlCondition p, Condition(node.items[i]));
      c.parts.push_back(std::move(p));
      return absl::OkStatus();
    };
    if (head == "and" || head == "or") {
      c.kind = head == "and" ? Kind::kAnd : Kind::kOr;
      for (size_t i = 1; i < n; ++i) ATOD_RETURN_IF_ERROR(part(i));
    } else if (head == "not") {
      if (n != 2) return Error(node, "(not CONDITION)");
      c.kind = Kind::kNot;
      ATOD_RETURN_IF_ERROR(part(1));
    } else if (head == "imply") {
      if (n != 3) return Error(node, "(imply CONDITION CONDITION)");
      c.kind = Kind::kOr;
      ATOD_RETURN_IF_ERROR(part(1));
      ATOD_RETURN_IF_ERROR(part(2));
      PddlCondition negated;
      negated.kind = Kind::kNot;
      negated.line = node.line;
      negated.parts.push_back(std::move(c.parts[0]));
      c.parts[0] = std::move(negated);
    } else if (head == "exists" || head == "forall") {
      if (n != 3 || !node.items[1].list())
        return Error(node, absl::StrCat("(", std::string(head),
                                        " (VARIABLES) CONDITION)"));
      c.kind = head == "exists" ? Kind::kExists : Kind::kForAll;
      ATOD_ASSIGN_OR_RETURN(c.vars, TypedList(node.items[1], 0));
      ATOD_RETURN_IF_ERROR(part(2));
    } else {
      ATOD_ASSIGN_OR_RETURN(c.atom, Words(node));
      c.kind = Kind::kAtom;
      if (head == "=") {
        if (n != 3) return Error(node, "(= TERM TERM)");
        c.kind = Kind::kEqual;
        c.atom.erase(c.atom.begin());
      }
    }
    return c;
  }

  absl::Status Effects(const Node& node, const PddlEffect& around,
                       std::vector<PddlEffect>& out) {
    if (!node.list()) return Error(node, "an effect in parentheses");
    ATOD_RETURN_IF_ERROR(CountPart(node));
    if (node.items.empty()) return absl::OkStatus();
    const std::string_view head = node.head();
    const size_t n = node.items.size();
    if (head == "and") {
      for (size_t i = 1; i < n; ++i)
        ATOD_RETURN_IF_ERROR(Effects(node.items[i], around, out));
    } else if (head == "when") {
      if (n != 3) return Error(node, "(when CONDITION EFFECT)");
      PddlEffect inner = around;
      ATOD_ASSIGN_OR_RETURN(PddlCondition when, Condition(node.items[1]));
      PddlCondition both;
      both.kind = PddlCondition::Kind::kAnd;
      both.line = node.line;
      both.parts.push_back(std::move(inner.when));
      both.parts.push_back(std::move(when));
      inner.when = std::move(both);
      return Effects(node.items[2], inner, out);
    } else if (head == "forall") {
      if (n != 3 || !node.items[1].list())
        return Error(node, "(forall (VARIABLES) EFFECT)");
      PddlEffect inner = around;
      ATOD_ASSIGN_OR_RETURN(std::vector<PddlTypedName> vars,
                            TypedList(node.items[1], 0));
      inner.vars.insert(inner.vars.end(), vars.begin(), vars.end());
      return Effects(node.items[2], inner, out);
    } else if (head == "increase" || head == "decrease" || head == "assign") {
      // Costs only.
    } else {
      PddlEffect effect = around;
      effect.add = head != "not";
      if (!effect.add && n != 2) return Error(node, "(not ATOM)");
      const Node& atom = effect.add ? node : node.items[1];
      ATOD_ASSIGN_OR_RETURN(effect.atom, Words(atom));
      if (effect.atom.empty()) return Error(atom, "an atom");
      effect.line = node.line;
      out.push_back(std::move(effect));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<PddlAction> Action(const Node& node) {
    parts_ = 0;
    PddlAction action;
    action.line = node.line;
    if (node.items.size() < 2 || node.items[1].list())
      return Error(node, "(:action NAME …)");
    action.name = node.items[1].word;
    for (size_t i = 2; i < node.items.size(); i += 2) {
      const std::string& key = node.items[i].word;
      if (i + 1 == node.items.size())
        return Error(node.items[i], "a value after it");
      const Node& value = node.items[i + 1];
      if (key == ":parameters") {
        if (!value.list()) return Error(value, "a parameter list");
        ATOD_ASSIGN_OR_RETURN(action.params, TypedList(value, 0));
      } else if (key == ":precondition") {
        ATOD_ASSIGN_OR_RETURN(action.precondition, Condition(value));
      } else if (key == ":effect") {
        PddlEffect none;
        ATOD_RETURN_IF_ERROR(Effects(value, none, action.effects));
      } else {
        return Error(node.items[i], ":parameters, :precondition or :effect");
      }
    }
    return action;
  }

 private:
  absl::Status CountPart(const Node& node) {
    if (++parts_ <= kMaxParts) return absl::OkStatus();
    return parser_.Error(
        node.line, "more conditions and effects",
        absl::StrCat("at most ", kMaxParts, " in one action or goal"));
  }

  const Parser& parser_;
  int parts_ = 0;
};

}  // namespace

absl::StatusOr<PddlDomain> ParsePddlDomain(std::string_view text,
                                           const std::string& field) {
  Parser parser(text, field);
  ATOD_ASSIGN_OR_RETURN(Node root, parser.Parse());
  Reader reader(parser);
  PddlDomain domain;
  ATOD_ASSIGN_OR_RETURN(domain.name, reader.Header(root, "domain"));
  ATOD_RETURN_IF_ERROR(reader.Once(root));
  for (size_t i = 2; i < root.items.size(); ++i) {
    const Node& section = root.items[i];
    const std::string_view head = section.head();
    if (head == ":types") {
      ATOD_ASSIGN_OR_RETURN(domain.types, reader.TypedList(section, 1));
    } else if (head == ":constants") {
      ATOD_ASSIGN_OR_RETURN(domain.constants, reader.TypedList(section, 1));
    } else if (head == ":predicates") {
      for (size_t k = 1; k < section.items.size(); ++k) {
        const Node& p = section.items[k];
        if (!p.list() || p.items.empty())
          return reader.Error(p, "(PREDICATE VARIABLES)");
        ATOD_ASSIGN_OR_RETURN(std::vector<PddlTypedName> args,
                              reader.TypedList(p, 1));
        domain.predicates.push_back(
            {std::string(p.head()), static_cast<int>(args.size())});
      }
    } else if (head == ":action") {
      ATOD_ASSIGN_OR_RETURN(PddlAction action, reader.Action(section));
      domain.actions.push_back(std::move(action));
    } else if (head != ":requirements" && head != ":functions") {
      return reader.Error(section,
                          ":requirements, :types, :constants, :predicates, "
                          ":functions or :action");
    }
  }
  return domain;
}

absl::StatusOr<PddlProblem> ParsePddlProblem(std::string_view text,
                                             const std::string& field) {
  Parser parser(text, field);
  ATOD_ASSIGN_OR_RETURN(Node root, parser.Parse());
  Reader reader(parser);
  PddlProblem problem;
  bool has_goal = false;
  ATOD_RETURN_IF_ERROR(reader.Header(root, "problem").status());
  ATOD_RETURN_IF_ERROR(reader.Once(root));
  for (size_t i = 2; i < root.items.size(); ++i) {
    const Node& section = root.items[i];
    const std::string_view head = section.head();
    if (head == ":domain") {
      if (section.items.size() != 2)
        return reader.Error(section, "(:domain NAME)");
      problem.domain = section.items[1].word;
    } else if (head == ":objects") {
      ATOD_ASSIGN_OR_RETURN(problem.objects, reader.TypedList(section, 1));
    } else if (head == ":init") {
      for (size_t k = 1; k < section.items.size(); ++k) {
        const Node& fact = section.items[k];
        if (fact.head() == "=") continue;
        ATOD_ASSIGN_OR_RETURN(std::vector<std::string> atom,
                              reader.Words(fact));
        if (atom.empty()) return reader.Error(fact, "(PREDICATE OBJECTS)");
        problem.init.push_back(std::move(atom));
        problem.init_lines.push_back(fact.line);
      }
    } else if (head == ":goal") {
      if (section.items.size() != 2)
        return reader.Error(section, "(:goal CONDITION)");
      ATOD_ASSIGN_OR_RETURN(problem.goal, reader.Condition(section.items[1]));
      has_goal = true;
    } else if (head != ":requirements" && head != ":metric") {
      return reader.Error(section,
                          ":domain, :objects, :init, :goal or :metric");
    }
  }
  if (!has_goal)
    return parser.Error(root.line, "no :goal", "(:goal CONDITION)");
  return problem;
}

}  // namespace atod::envs
