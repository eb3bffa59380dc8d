#include "services/cli/chat.h"

#include <string_view>
#include <utility>

#include "common/base/status_macros.h"

namespace atod::cli {
namespace {

constexpr uint64_t kSession = 1;

// Shows a growing text, without a character whose bytes are not all there.
class Stream {
 public:
  explicit Stream(const std::function<void(std::string_view)>& show)
      : show_(show) {}
  void Show(std::string_view text, bool last) {
    constexpr std::string_view kCut = "\uFFFD";
    while (!last && text.ends_with(kCut)) text.remove_suffix(kCut.size());
    if (text.size() <= shown_) return;
    show_(text.substr(shown_));
    shown_ = text.size();
  }

 private:
  const std::function<void(std::string_view)>& show_;
  size_t shown_ = 0;
};

}  // namespace

Chat::Chat(engine::ModelEngine& engine, const Tokenizer& tokenizer,
           ChatSettings settings)
    : engine_(engine), tokenizer_(tokenizer), settings_(std::move(settings)) {
  Clear();
}

void Chat::Clear() {
  engine_.EndSession(kSession);
  messages_.clear();
  if (!settings_.system.empty())
    messages_.push_back({.role = "system", .content = settings_.system});
}

absl::StatusOr<Chat::Answer> Chat::Say(
    const std::string& text, const std::function<void(std::string_view)>& show,
    const std::function<bool()>& stop) {
  messages_.push_back({.role = "user", .content = text});
  absl::StatusOr<Answer> answer = Generate(show, stop);
  if (answer.ok())
    messages_.push_back({.role = "assistant", .content = answer->text});
  else
    messages_.pop_back();
  return answer;
}

absl::StatusOr<Chat::Answer> Chat::Generate(
    const std::function<void(std::string_view)>& show,
    const std::function<bool()>& stop) {
  ATOD_ASSIGN_OR_RETURN(
      const std::string prompt,
      RenderChat(messages_, {.thinking = settings_.thinking}));
  engine::EngineRequest request;
  request.id = ++last_id_;
  request.prompt = tokenizer_.Encode(prompt);
  request.sampling = settings_.sampling;
  request.noise.run_seed = settings_.seed;
  request.noise.turn = static_cast<uint32_t>(messages_.size());
  request.session = kSession;
  ATOD_RETURN_IF_ERROR(engine_.Enqueue(std::move(request)));

  Stream stream(show);
  const auto text_of = [&](absl::Span<const int32_t> tokens) {
    return tokenizer_.Decode({tokens.begin(), tokens.end()},
                             /*skip_special=*/true);
  };
  while (true) {
    if (stop()) {
      Answer answer{text_of(engine_.Sampled(last_id_)),
                    engine::FinishReason::kCancelled};
      engine_.Cancel(last_id_);
      return answer;
    }
    ATOD_ASSIGN_OR_RETURN(std::vector<engine::EngineResult> finished,
                          engine_.Step());
    if (finished.empty()) {
      stream.Show(text_of(engine_.Sampled(last_id_)), false);
      continue;
    }
    engine::EngineResult& result = finished.front();
    if (result.finish == engine::FinishReason::kStop) result.tokens.pop_back();
    Answer answer{text_of(result.tokens), result.finish};
    stream.Show(answer.text, true);
    return answer;
  }
}

}  // namespace atod::cli
