#include "services/learner/stored_episodes.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::learner {

absl::StatusOr<StoredEpisodes> StoredEpisodes::Load(
    const std::string& path, const std::string& split,
    const std::string& content_hash, uint32_t max_turns) {
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  StoredEpisodes out;
  int64_t line = 0;
  for (const absl::string_view piece : absl::StrSplit(text, '\n')) {
    ++line;
    if (piece.empty()) continue;
    const auto wrong = [&](const std::string& field,
                           const nlohmann::json& found,
                           const std::string& expected) {
      return BadInput(
          {.file = path,
           .field = field,
           .line = line,
           .found = found.is_null() ? "nothing" : JsonPreview(found),
           .expected = expected});
    };
    const auto json = ParseJson({piece.data(), piece.size()}, path);
    if (!json.ok() || !json->is_object())
      return wrong("", json.ok() ? *json : nlohmann::json(std::string(piece)),
                   "a JSON object");
    const auto member = [&](const char* name) {
      const auto it = json->find(name);
      return it == json->end() ? nlohmann::json() : *it;
    };
    const std::pair<const char*, const std::string&> same[] = {
        {"split", split}, {"content_hash", content_hash}};
    for (const auto& [field, expected] : same)
      if (member(field) != nlohmann::json(expected))
        return wrong(field, member(field),
                     absl::StrCat("\"", expected, "\", as in the run"));
    const nlohmann::json task = member("task_id"), actions = member("actions");
    if (!task.is_string()) return wrong("task_id", task, "text");
    if (!actions.is_array() || actions.empty())
      return wrong("actions", actions, "a list with at least one action");
    if (actions.size() > max_turns)
      return wrong("actions", absl::StrCat(actions.size(), " actions"),
                   absl::StrCat("at most ", max_turns, ", env.max_turns"));
    std::vector<std::string> list;
    for (const nlohmann::json& action : actions) {
      if (!action.is_string()) return wrong("actions", action, "text");
      list.push_back(action.get<std::string>());
    }
    const auto [it, fresh] =
        out.actions_.try_emplace(task.get<std::string>(), list);
    if (!fresh && list.size() < it->second.size()) it->second = std::move(list);
  }
  if (out.actions_.empty())
    return BadInput({.file = path,
                     .field = "episodes",
                     .found = "none",
                     .expected = "one JSON object a line, of `atod collect`"});
  return out;
}

const std::vector<std::string>& StoredEpisodes::ActionsOf(
    const std::string& task_id) const {
  static const auto* const none = new std::vector<std::string>;
  const auto it = actions_.find(task_id);
  return it == actions_.end() ? *none : it->second;
}

}  // namespace atod::learner
