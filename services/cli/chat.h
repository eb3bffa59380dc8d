#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/engine/engine.h"
#include "common/tokenizer/chat_template.h"
#include "common/tokenizer/tokenizer.h"

namespace atod::cli {

struct ChatSettings {
  std::string system{};  // empty: none
  bool thinking = true;
  engine::SamplingParams sampling{};
  uint64_t seed = 0;
};

// A conversation with a model, in Qwen3's chat format. What was said is not
// computed again (an engine's session). One thread owns it and its engine.
class Chat {
 public:
  // Nothing is owned. The model's template must be one that RenderChat knows.
  Chat(engine::ModelEngine& engine, const Tokenizer& tokenizer,
       ChatSettings settings);

  struct Answer {
    std::string text;  // with its thinking
    engine::FinishReason finish = engine::FinishReason::kStop;
  };
  // Shows the answer to `text` as it is sampled, in pieces of whole characters.
  // When `stop` says so the answer ends with what was sampled (kCancelled). On
  // an error, such as a conversation that is too long, it is as if `text` had
  // not been said.
  absl::StatusOr<Answer> Say(const std::string& text,
                             const std::function<void(std::string_view)>& show,
                             const std::function<bool()>& stop);
  // Forgets what was said.
  void Clear();

 private:
  absl::StatusOr<Answer> Generate(
      const std::function<void(std::string_view)>& show,
      const std::function<bool()>& stop);

  engine::ModelEngine& engine_;
  const Tokenizer& tokenizer_;
  const ChatSettings settings_;
  std::vector<ChatMessage> messages_;
  uint64_t last_id_ = 0;
};

}  // namespace atod::cli
