#include "services/envs/alfworld/agent_view.h"

#include <algorithm>

namespace atod::envs {
namespace {

constexpr char kNothing[] = "nothing";
constexpr size_t kRecent = 2;

bool IsLetter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// What stands in `text` between `before` and the next `after`; empty when
// either is missing.
std::string_view Between(std::string_view text, std::string_view before,
                         std::string_view after) {
  const size_t at = text.find(before);
  if (at == std::string_view::npos) return {};
  text.remove_prefix(at + before.size());
  const size_t end = text.find(after);
  return end == std::string_view::npos ? std::string_view()
                                       : text.substr(0, end);
}

// "a shelf 1, a desk 1, and a bed 1" -> names without articles.
std::vector<std::string> Names(std::string_view list) {
  std::vector<std::string> out;
  while (!list.empty()) {
    const size_t comma = list.find(", ");
    std::string_view item = list.substr(0, comma);
    if (item.starts_with("and ")) item.remove_prefix(4);
    if (item.starts_with("a ")) item.remove_prefix(2);
    if (!item.empty() && item != kNothing) out.emplace_back(item);
    if (comma == std::string_view::npos) break;
    list.remove_prefix(comma + 2);
  }
  return out;
}

}  // namespace

AgentView::AgentView(std::string_view intro, std::string_view task) {
  std::string word;
  for (const char c : task) {
    if (IsLetter(c)) {
      word += c;
    } else if (!word.empty()) {
      task_words_.insert(word);
      word.clear();
    }
  }
  if (!word.empty()) task_words_.insert(word);
  receptacles_ =
      Names(Between(intro, "Looking quickly around you, you see ", "."));
  if (receptacles_.empty())
    receptacles_ = Names(Between(intro, "You are facing the ", "."));
}

void AgentView::Check(std::string_view receptacle) {
  const bool known = std::find(receptacles_.begin(), receptacles_.end(),
                               receptacle) != receptacles_.end();
  if (!known) return;
  if (std::find(checked_.begin(), checked_.end(), receptacle) == checked_.end())
    checked_.emplace_back(receptacle);
  if (checked_.size() == receptacles_.size()) checked_.clear();
}

void AgentView::Observe(std::string_view command, std::string_view feedback) {
  std::string line(command);
  std::replace(line.begin(), line.end(), '\n', ' ');
  if (!line.empty()) recent_.push_back(std::move(line));
  if (recent_.size() > kRecent) recent_.erase(recent_.begin());
  text_ = feedback;

  Check(Between(feedback, "On the ", ", you see "));
  Check(Between(feedback, "The ", " is open. In it, you see "));
  for (const auto& [verb, word] :
       {std::pair<std::string_view, const char*>{"You heat the ", "hot"},
        {"You cool the ", "cool"},
        {"You clean the ", "clean"}}) {
    if (!feedback.starts_with(verb)) continue;
    const std::string_view object = Between(feedback, verb, " using ");
    if (!object.empty()) treated_[std::string(object)] = word;
  }
  if (feedback.starts_with("You pick up the ")) {
    holding_ = Between(feedback, "You pick up the ", " from the ");
    checked_.clear();
  } else if (feedback.starts_with("You move the ") ||
             feedback.starts_with("You put the ")) {
    holding_.clear();
    checked_.clear();
  }
}

std::string AgentView::Mark(std::string_view text) const {
  std::string out;
  size_t i = 0;
  while (i < text.size()) {
    if (!IsLetter(text[i])) {
      out += text[i++];
      continue;
    }
    const size_t begin = i;
    while (i < text.size() && IsLetter(text[i])) ++i;
    const std::string word(text.substr(begin, i - begin));
    out += word;
    if (i + 1 < text.size() && text[i] == ' ' && IsDigit(text[i + 1]) &&
        task_words_.count(word) > 0)
      out += '*';
  }
  return out;
}

std::string AgentView::List(const std::vector<std::string>& items) const {
  if (items.empty()) return kNothing;
  std::string out;
  for (const std::string& item : items) {
    if (!out.empty()) out += ", ";
    out += item;
  }
  return Mark(out);
}

std::map<std::string, std::string> AgentView::Fields() const {
  std::vector<std::string> unchecked;
  for (const std::string& r : receptacles_)
    if (std::find(checked_.begin(), checked_.end(), r) == checked_.end())
      unchecked.push_back(r);
  std::vector<std::string> holding;
  if (!holding_.empty()) {
    const auto it = treated_.find(holding_);
    holding.push_back(it == treated_.end() ? holding_
                                           : it->second + " " + holding_);
  }
  return {{"holding", List(holding)},
          {"unchecked", List(unchecked)},
          {"checked", List(checked_)},
          {"recent", List(recent_)},
          {"text", Mark(text_)}};
}

}  // namespace atod::envs
