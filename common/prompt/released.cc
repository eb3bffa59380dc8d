#include "common/prompt/released.h"

#include <cstdlib>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/status_macros.h"
#include "common/prompt/render.h"

namespace atod {

std::string CompatDataDir() {
  const char* dir = std::getenv("ATOD_COMPAT_DATA");
  return dir != nullptr ? dir : "../shared/data";
}

absl::StatusOr<PromptSpec> ReleasedPromptSpec(std::string_view env,
                                              const std::string& data_dir) {
  PromptSpec spec;
  spec.name = "released";
  spec.chat = true;
  spec.overflow = PromptSpec::Overflow::kCutLeft;
  if (env == "alfworld" || env == "webshop") {
    spec.history_line =
        "[Observation {index}: '{observation}', Action {index}: '{action}']";
    spec.history_join = "\n";
    spec.window = 2;
    spec.admissible_item = env == "alfworld" ? "'{action}'" : "'{action}',";
    spec.admissible_join = env == "alfworld" ? "\n " : "\n";
    if (env == "alfworld") spec.admissible_hidden = {"help"};
    if (env == "webshop") spec.max_prompt_chars = 13000;
    spec.max_prompt_tokens = env == "alfworld" ? 2048 : 4096;
  } else if (env == "search") {
    spec.history_line = "Step {index}:{action} {next_observation}\n";
    spec.history_join = "\n";
    spec.window = 4;
    spec.max_prompt_tokens = 4096;
  } else {
    return BadInput({.field = "env",
                     .found = std::string(env),
                     .expected = "alfworld, webshop or search"});
  }
  const std::string path =
      (std::filesystem::path(data_dir) / "verl-agent-prompts" / "prompts.json")
          .string();
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok())
    return absl::Status(
        text.status().code(),
        absl::StrCat(text.status().message(),
                     "; prompt set released is read from the folder that "
                     "$ATOD_COMPAT_DATA names (",
                     data_dir, ")"));
  ATOD_ASSIGN_OR_RETURN(const nlohmann::json templates, ParseJson(*text, path));
  const std::string key =
      absl::StrCat(absl::AsciiStrToUpper(std::string(env)), "_TEMPLATE");
  for (const bool first : {true, false}) {
    const std::string name = first ? key + "_NO_HIS" : key;
    if (!templates.is_object() || !templates.contains(name) ||
        !templates[name].is_string()) {
      return BadInput({.file = path,
                       .field = name,
                       .found = "nothing",
                       .expected = "a template"});
    }
    (first ? spec.first : spec.next) =
        absl::StrReplaceAll(templates[name].get<std::string>(),
                            {{"{available_actions}", "{admissible_actions}"},
                             {"{memory_context}", "{action_history}"}});
  }
  ATOD_RETURN_IF_ERROR(WithFile(CheckPromptSpec(spec), path));
  return spec;
}

}  // namespace atod
