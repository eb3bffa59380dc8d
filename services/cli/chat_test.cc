#include "services/cli/chat.h"

#include <memory>
#include <string>
#include <utility>

#include "common/engine/fake_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rollout/fakes.h"

namespace atod::cli {
namespace {

using rollout::ByteTokenizer;

class ChatTest : public testing::Test {
 protected:
  ChatTest() {
    auto model = std::make_unique<engine::FakeModel>(257, 600);
    model_ = model.get();
    engine_ = engine::MakeEngine(std::move(model), {rollout::kEndToken},
                                 {.max_slots = 1})
                  .value();
  }
  Chat Make(uint32_t max_tokens, bool thinking = true) {
    ChatSettings settings{.thinking = thinking};
    settings.sampling.max_tokens = max_tokens;
    return Chat(*engine_, *tokenizer_, settings);
  }
  static bool Never() { return false; }

  const std::unique_ptr<Tokenizer> tokenizer_ = ByteTokenizer();
  engine::FakeModel* model_ = nullptr;
  std::unique_ptr<engine::ModelEngine> engine_;
};

TEST_F(ChatTest, PiecesAreWholeCharactersAndMakeTheAnswer) {
  Chat chat = Make(60);
  std::string shown;
  int pieces = 0;
  const auto answer = chat.Say(
      "hello",
      [&](std::string_view piece) {
        shown += piece;
        ++pieces;
      },
      Never);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(shown, answer->text);
  EXPECT_GT(pieces, 10);
  EXPECT_GT(shown.size(), 20u);
}

TEST_F(ChatTest, WhatWasSaidIsNotComputedAgain) {
  Chat chat = Make(20);
  const auto show = [](std::string_view) {};
  ASSERT_TRUE(chat.Say("a first question", show, Never).ok());
  EXPECT_EQ(engine_->stats().prompt_tokens_reused, 0);
  const int64_t first = engine_->stats().prompt_tokens_computed;
  ASSERT_TRUE(chat.Say("and another", show, Never).ok());
  EXPECT_GT(engine_->stats().prompt_tokens_reused, 30);
  chat.Clear();
  EXPECT_EQ(engine_->stats().cache_rows_used, 0);
  const int64_t before = engine_->stats().prompt_tokens_computed;
  ASSERT_TRUE(chat.Say("a first question", show, Never).ok());
  EXPECT_EQ(engine_->stats().prompt_tokens_computed - before, first);
}

TEST_F(ChatTest, ThinkingChangesThePrompt) {
  const auto show = [](std::string_view) {};
  ASSERT_TRUE(Make(1).Say("hello", show, Never).ok());
  const int64_t on = engine_->stats().prompt_tokens_computed;
  Chat chat = Make(1, /*thinking=*/false);  // ends the first one's session
  ASSERT_TRUE(chat.Say("hello", show, Never).ok());
  EXPECT_GT(engine_->stats().prompt_tokens_computed - on, on);
}

TEST_F(ChatTest, AStoppedAnswerCountsAsFarAsItCame) {
  Chat chat = Make(400);
  int steps = 0;
  const auto answer = chat.Say(
      "hello", [](std::string_view) {}, [&] { return ++steps > 10; });
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->finish, engine::FinishReason::kCancelled);
  EXPECT_FALSE(answer->text.empty());
  EXPECT_FALSE(engine_->has_work());
  EXPECT_TRUE(chat.Say(
                      "go on", [](std::string_view) {}, Never)
                  .ok());
}

TEST_F(ChatTest, ATooLongMessageLeavesTheConversationAsItWas) {
  Chat chat = Make(20);
  const auto show = [](std::string_view) {};
  const auto answer = chat.Say(std::string(700, 'x'), show, Never);
  EXPECT_THAT(answer.status().message(),
              testing::HasSubstr("tokens, expected 1 to 599"));
  EXPECT_TRUE(chat.Say("short", show, Never).ok());
}

}  // namespace
}  // namespace atod::cli
