#include "common/prompt/render.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/tokenizer/chat_template.h"

namespace atod {
namespace {

constexpr std::string_view kFieldPrefix = "field.";

// A placeholder's text, appended; false for a name that is not known, which
// then stays as it is written.
using Expand = absl::FunctionRef<bool(std::string_view name, std::string& out)>;

// A name as placeholders have it, between text[open] = '{' and its '}'; empty
// when other braces stand there.
std::string_view NameAt(std::string_view text, size_t open) {
  size_t end = open + 1;
  while (end < text.size() && ((text[end] >= 'a' && text[end] <= 'z') ||
                               text[end] == '_' || text[end] == '.')) {
    ++end;
  }
  if (end == text.size() || text[end] != '}') return {};
  return text.substr(open + 1, end - open - 1);
}

std::string ExpandTemplate(std::string_view text, Expand expand) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t open = std::min(text.find('{', i), text.size());
    out += text.substr(i, open - i);
    if (open == text.size()) break;
    const std::string_view name = NameAt(text, open);
    if (!name.empty() && expand(name, out)) {
      i = open + name.size() + 2;
    } else {
      out += '{';
      i = open + 1;
    }
  }
  return out;
}

std::string RenderAdmissible(const PromptSpec& spec,
                             const PromptInputs& inputs) {
  std::string out;
  bool first = true;
  for (const std::string& action : inputs.admissible) {
    if (std::find(spec.admissible_hidden.begin(), spec.admissible_hidden.end(),
                  action) != spec.admissible_hidden.end()) {
      continue;
    }
    if (!std::exchange(first, false)) out += spec.admissible_join;
    out += ExpandTemplate(spec.admissible_item,
                          [&](std::string_view name, std::string& text) {
                            if (name != "action") return false;
                            text += action;
                            return true;
                          });
  }
  return out;
}

size_t HistoryLength(const PromptSpec& spec, const PromptInputs& inputs) {
  return std::min<size_t>(spec.window, inputs.history.size());
}

std::string RenderHistory(const PromptSpec& spec, const PromptInputs& inputs) {
  const std::vector<HistoryRecord>& history = inputs.history;
  const size_t size = history.size();
  std::string out;
  for (size_t i = size - HistoryLength(spec, inputs); i < size; ++i) {
    if (!out.empty()) out += spec.history_join;
    out += ExpandTemplate(spec.history_line, [&](std::string_view name,
                                                 std::string& text) {
      if (name == "index") {
        absl::StrAppend(&text, inputs.turn_index + 1 + i - size);
      } else if (name == "observation") {
        text += history[i].observation;
      } else if (name == "action") {
        text += history[i].action;
      } else if (name == "next_observation") {
        text += i + 1 < size ? history[i + 1].observation : inputs.observation;
      } else {
        return false;
      }
      return true;
    });
  }
  return out;
}

std::string RenderTemplate(std::string_view text, const PromptSpec& spec,
                           const PromptInputs& inputs) {
  return ExpandTemplate(text, [&](std::string_view name, std::string& out) {
    if (name == "task_description") {
      out += inputs.task;
    } else if (name == "current_observation") {
      out += inputs.observation;
    } else if (name == "admissible_actions") {
      out += RenderAdmissible(spec, inputs);
    } else if (name == "action_history") {
      out += RenderHistory(spec, inputs);
    } else if (name == "step_count") {
      absl::StrAppend(&out, inputs.turn_index);
    } else if (name == "current_step") {
      absl::StrAppend(&out, inputs.turn_index + 1);
    } else if (name == "history_length") {
      absl::StrAppend(&out, HistoryLength(spec, inputs));
    } else if (name.starts_with(kFieldPrefix)) {
      const auto it =
          inputs.fields.find(std::string(name.substr(kFieldPrefix.size())));
      if (it != inputs.fields.end()) out += it->second;
    } else {
      return false;
    }
    return true;
  });
}

size_t NumChars(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (c & 0xC0) != 0x80; });
}

std::vector<int32_t> Tokens(const PromptSpec& spec, const std::string& text,
                            const Tokenizer& tokenizer) {
  return tokenizer.Encode(spec.chat ? ChatPrompt(text) : text);
}

}  // namespace

absl::Status CheckPromptSpec(const PromptSpec& spec) {
  using Names = std::vector<std::string_view>;
  const Names turn = {"task_description",   "current_observation",
                      "admissible_actions", "step_count",
                      "history_length",     "action_history",
                      "current_step"};
  const Names line = {"index", "observation", "action", "next_observation"};
  const Names item = {"action"};
  const struct {
    const char* field;
    const std::string& text;
    const Names& names;
    bool fields;
  } templates[] = {{"first", spec.first, turn, true},
                   {"next", spec.next, turn, true},
                   {"grow", spec.grow, turn, true},
                   {"history_line", spec.history_line, line, false},
                   {"admissible_item", spec.admissible_item, item, false}};
  for (const auto& t : templates) {
    std::string unknown;
    ExpandTemplate(t.text, [&](std::string_view name, std::string&) {
      const bool known =
          std::find(t.names.begin(), t.names.end(), name) != t.names.end() ||
          (t.fields && name.starts_with(kFieldPrefix));
      if (!known && unknown.empty()) unknown = name;
      return true;
    });
    if (!unknown.empty()) {
      return BadInput(
          {.field = absl::StrCat("prompt ", spec.name, ".", t.field),
           .found = absl::StrCat("{", unknown, "}"),
           .expected = "a placeholder of common/prompt"});
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLayout(const PromptSpec& spec, std::string_view layout) {
  if (layout == kWindowed || (layout == kGrowing && !spec.grow.empty()))
    return absl::OkStatus();
  return BadInput(
      {.field = "layout",
       .found = std::string(layout),
       .expected = absl::StrCat(kWindowed, ", the layout that prompt set ",
                                spec.name, " has a template for")});
}

std::string RenderGrow(const PromptSpec& spec, const PromptInputs& inputs) {
  return RenderTemplate(spec.grow, spec, inputs);
}

std::string RenderPrompt(const PromptSpec& spec, const PromptInputs& inputs) {
  if (inputs.turn_index > 0) {
    std::string text = RenderTemplate(spec.next, spec, inputs);
    if (spec.max_prompt_chars == 0 || NumChars(text) <= spec.max_prompt_chars) {
      return text;
    }
  }
  return RenderTemplate(spec.first, spec, inputs);
}

absl::StatusOr<FittedPrompt> FitPrompt(const PromptSpec& spec,
                                       const PromptInputs& inputs,
                                       const Tokenizer& tokenizer,
                                       uint32_t max_tokens) {
  if (spec.max_prompt_tokens > 0) {
    max_tokens = std::min(max_tokens, spec.max_prompt_tokens);
  }
  if (spec.chat) {
    ATOD_RETURN_IF_ERROR(tokenizer.template_status());
  }
  FittedPrompt out;
  out.tokens = Tokens(spec, RenderPrompt(spec, inputs), tokenizer);
  const size_t full = out.tokens.size();
  if (full > max_tokens && spec.overflow == PromptSpec::Overflow::kCutLeft) {
    out.tokens.erase(out.tokens.begin(), out.tokens.end() - max_tokens);
  }
  if (full > max_tokens &&
      spec.overflow == PromptSpec::Overflow::kFirstTemplate) {
    out.tokens =
        Tokens(spec, RenderTemplate(spec.first, spec, inputs), tokenizer);
  }
  if (out.tokens.size() > max_tokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("prompt set ", spec.name, ": found ", out.tokens.size(),
                     " tokens, expected at most ", max_tokens));
  }
  out.cut_tokens =
      static_cast<uint32_t>(full - std::min(full, out.tokens.size()));
  return out;
}

absl::StatusOr<std::vector<int32_t>> GrowPrompt(const PromptSpec& spec,
                                                const PromptInputs& inputs,
                                                const Tokenizer& tokenizer,
                                                int32_t last) {
  const std::string text = RenderGrow(spec, inputs);
  if (!spec.chat) return tokenizer.Encode(text);
  ATOD_RETURN_IF_ERROR(tokenizer.template_status());
  const bool ended = tokenizer.TokenId(kChatEnd) == last;
  return tokenizer.Encode(
      absl::StrCat(ended ? "" : kChatEnd, "\n", ChatPrompt(text)));
}

absl::StatusOr<FittedPrompt> FitContextPrompt(const PromptSpec& spec,
                                              const PromptInputs& inputs,
                                              const std::string& context,
                                              const Tokenizer& tokenizer,
                                              uint32_t max_tokens) {
  if (spec.max_prompt_tokens > 0)
    max_tokens = std::min(max_tokens, spec.max_prompt_tokens);
  PromptSpec shorter = spec;
  size_t full = 0;
  FittedPrompt out;
  const auto fits = [&](const std::string& text) {
    out.tokens = Tokens(spec, absl::StrCat(context, "\n", text), tokenizer);
    full = std::max(full, out.tokens.size());
    out.cut_tokens = static_cast<uint32_t>(full - out.tokens.size());
    return out.tokens.size() <= max_tokens;
  };
  if (fits(RenderPrompt(spec, inputs))) return out;
  while (inputs.turn_index > 0 && shorter.window > 0) {
    shorter.window = std::min<uint32_t>(
        shorter.window - 1, static_cast<uint32_t>(inputs.history.size()));
    if (fits(RenderPrompt(shorter, inputs))) return out;
  }
  if (fits(RenderTemplate(spec.first, spec, inputs))) return out;
  return absl::ResourceExhaustedError(absl::StrCat(
      "prompt set ", spec.name, " behind its context: found ",
      out.tokens.size(), " tokens, expected at most ", max_tokens));
}

}  // namespace atod
