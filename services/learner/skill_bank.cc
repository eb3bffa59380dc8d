#include "services/learner/skill_bank.h"

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::learner {

absl::StatusOr<SkillBank> SkillBank::Load(const std::string& path) {
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  ATOD_ASSIGN_OR_RETURN(const nlohmann::json root, ParseJson(text, path));
  const auto wrong = [&](const std::string& field, const nlohmann::json& found,
                         const std::string& expected) {
    return BadInput({.file = path,
                     .field = field,
                     .found = JsonPreview(found),
                     .expected = expected});
  };
  if (!root.is_object() || !root.contains("skills") ||
      !root["skills"].is_array())
    return wrong("skills", root, "a list of skills");
  SkillBank bank;
  for (size_t i = 0; i < root["skills"].size(); ++i) {
    const nlohmann::json& skill = root["skills"][i];
    const std::string field = absl::StrCat("skills[", i, "]");
    if (!skill.is_object() || !skill.contains("text") ||
        !skill["text"].is_string() || skill["text"].get<std::string>().empty())
      return wrong(field, skill, "an object with a text");
    const nlohmann::json category = skill.value("category", nlohmann::json(""));
    if (!category.is_string())
      return wrong(field + ".category", category, "text");
    bank.skills_.emplace_back(category.get<std::string>(),
                              skill["text"].get<std::string>());
  }
  return bank;
}

std::string SkillBank::TextFor(const std::string& category) const {
  std::string out;
  for (const auto& [of, text] : skills_)
    if (of.empty() || of == category)
      absl::StrAppend(&out, out.empty() ? "" : "\n", text);
  return out;
}

}  // namespace atod::learner
