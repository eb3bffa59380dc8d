#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace atod {

// The token that ends a message.
inline constexpr char kChatEnd[] = "<|im_end|>";

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
  // Of an assistant; without it, what lies between <think> tags in `content`.
  std::optional<std::string> reasoning_content{};
};

struct ChatOptions {
  bool generation_prompt = true;
  // Off: the generation prompt holds an empty thinking block.
  bool thinking = true;
};

// Messages in Qwen3's chat format, byte for byte what the model's own template
// gives without tools. Tools are not supported: role "tool" is refused.
absl::StatusOr<std::string> RenderChat(const std::vector<ChatMessage>& messages,
                                       const ChatOptions& options = {});

// One user message with the generation prompt: what a policy is asked.
std::string ChatPrompt(std::string_view user);

// OK when `chat_template` (a model's Jinja text) renders as RenderChat does:
// it is empty, or one of Qwen3's hybrid-thinking templates. The text is not
// interpreted, so any other is refused rather than rendered wrongly.
absl::Status CheckChatTemplate(std::string_view chat_template);

}  // namespace atod
