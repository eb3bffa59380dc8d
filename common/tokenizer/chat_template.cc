#include "common/tokenizer/chat_template.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"

namespace atod {
namespace {

constexpr std::string_view kStart = "<|im_start|>";
constexpr std::string_view kEnd = "<|im_end|>\n";

std::string_view StripNewlines(std::string_view text, bool front, bool back) {
  while (front && text.starts_with('\n')) text.remove_prefix(1);
  while (back && text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

bool IsToolResponse(std::string_view content) {
  return content.starts_with("<tool_response>") &&
         content.ends_with("</tool_response>");
}

void AppendAssistant(const ChatMessage& message, bool after_last_query,
                     bool last, std::string& out) {
  constexpr std::string_view kOpen = "<think>", kClose = "</think>";
  std::string_view content = message.content;
  std::string_view reasoning;
  if (message.reasoning_content.has_value()) {
    reasoning = *message.reasoning_content;
  } else if (content.find(kClose) != content.npos) {
    reasoning = StripNewlines(content.substr(0, content.find(kClose)),
                              /*front=*/false, /*back=*/true);
    const size_t open = reasoning.rfind(kOpen);
    if (open != reasoning.npos) reasoning.remove_prefix(open + kOpen.size());
    reasoning = StripNewlines(reasoning, true, false);
    content = StripNewlines(
        content.substr(content.rfind(kClose) + kClose.size()), true, false);
  }
  out += kStart;
  out += "assistant\n";
  // Thoughts of turns before the last question are left out.
  if (after_last_query && (last || !reasoning.empty())) {
    out += "<think>\n";
    out += StripNewlines(reasoning, true, true);
    out += "\n</think>\n\n";
    content = StripNewlines(content, true, false);
  }
  out += content;
  out += kEnd;
}

// A template that changes something likes to say so in a comment, in the words
// of what it changes.
std::string WithoutComments(std::string_view text) {
  std::string out;
  for (size_t at; (at = text.find("{#")) != text.npos;) {
    out += text.substr(0, at);
    const size_t end = text.find("#}", at + 2);
    text.remove_prefix(end == text.npos ? text.size() : end + 2);
  }
  out += text;
  return out;
}

}  // namespace

absl::StatusOr<std::string> RenderChat(const std::vector<ChatMessage>& messages,
                                       const ChatOptions& options) {
  if (messages.empty()) {
    return BadInput({.field = "messages",
                     .found = "an empty list",
                     .expected = "at least one message"});
  }
  size_t last_query = messages.size() - 1;
  for (size_t i = messages.size(); i-- > 0;) {
    if (messages[i].role == "user" && !IsToolResponse(messages[i].content)) {
      last_query = i;
      break;
    }
  }
  std::string out;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "user" || message.role == "system") {
      out += kStart;
      out += message.role;
      out += '\n';
      out += message.content;
      out += kEnd;
    } else if (message.role == "assistant") {
      AppendAssistant(message, i > last_query, i + 1 == messages.size(), out);
    } else {
      return BadInput({.field = absl::StrCat("messages[", i, "].role"),
                       .found = message.role,
                       .expected = "system, user or assistant"});
    }
  }
  if (options.generation_prompt) {
    out += "<|im_start|>assistant\n";
    if (!options.thinking) out += "<think>\n\n</think>\n\n";
  }
  return out;
}

std::string ChatPrompt(std::string_view user) {
  std::string out(kStart);
  out += "user\n";
  out += user;
  out += kEnd;
  out += "<|im_start|>assistant\n";
  return out;
}

absl::Status CheckChatTemplate(std::string_view with_comments) {
  if (with_comments.empty()) return absl::OkStatus();
  const std::string without = WithoutComments(with_comments);
  const std::string_view chat_template = without;
  // Qwen3's template exists in a few spellings that differ in guards and in
  // tool calls; what decides is how it ends and that it drops old thoughts.
  constexpr std::string_view kTail =
      R"({%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %})";
  if (StripNewlines(chat_template, false, true).ends_with(kTail) &&
      chat_template.find("loop.index0 > ns.last_query_index") !=
          chat_template.npos &&
      chat_template.find("reasoning_content.strip('\\n')") !=
          chat_template.npos) {
    return absl::OkStatus();
  }
  return BadInput({.field = "chat_template",
                   .found = "a template that is not known here",
                   .expected = "Qwen3's (with enable_thinking), or none"});
}

}  // namespace atod
