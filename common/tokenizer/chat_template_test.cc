#include "common/tokenizer/chat_template.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

using ::testing::HasSubstr;

// The expected texts are what transformers renders with the model's template;
// tests/peers/tokenizer_parity.py compares many more.
TEST(RenderChatTest, AQuestionIsFollowedByTheGenerationPrompt) {
  EXPECT_EQ(*RenderChat({{"system", "S"}, {"user", "U"}}),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(*RenderChat({{"user", "U"}}, {.thinking = false}),
            "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
            "<think>\n\n</think>\n\n");
  EXPECT_EQ(*RenderChat({{"user", "U"}}), ChatPrompt("U"));
}

TEST(RenderChatTest, ThoughtsBeforeTheLastQuestionAreLeftOut) {
  EXPECT_EQ(*RenderChat({{"user", "1"},
                         {"assistant", "<think>\nt1\n</think>\n\na1"},
                         {"user", "2"},
                         {"assistant", "<think>\nt2\n</think>\n\na2"}},
                        {.generation_prompt = false}),
            "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>"
            "\n<|im_start|>user\n2<|im_end|>\n<|im_start|>assistant\n<think>\n"
            "t2\n</think>\n\na2<|im_end|>\n");
}

TEST(RenderChatTest, ReasoningMayStandApart) {
  EXPECT_EQ(*RenderChat({{"user", "1"}, {"assistant", "a", "\nt\n"}},
                        {.generation_prompt = false}),
            "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n<think>\nt\n"
            "</think>\n\na<|im_end|>\n");
}

TEST(RenderChatTest, OtherRolesAndEmptyListsAreRefused) {
  EXPECT_THAT(RenderChat({{"tool", "x"}}).status().message(),
              HasSubstr("messages[0].role: found tool"));
  EXPECT_THAT(RenderChat({}).status().message(),
              HasSubstr("messages: found an empty list"));
}

TEST(CheckChatTemplateTest, UnknownTemplatesAreRefused) {
  EXPECT_TRUE(CheckChatTemplate("").ok());
  EXPECT_THAT(CheckChatTemplate("{{ messages }}").message(),
              HasSubstr("chat_template: found a template that is not known"));
}

// TRL's training variant keeps all thoughts, and its comment names the
// condition that it took out.
TEST(CheckChatTemplateTest, WhatACommentSaysIsNoTemplate) {
  const std::string rules =
      "loop.index0 > ns.last_query_index reasoning_content.strip('\\n')";
  const std::string tail = R"({%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %})";
  EXPECT_TRUE(CheckChatTemplate(rules + "\n" + tail + "\n").ok());
  EXPECT_FALSE(CheckChatTemplate("{#- " + rules + " -#}\n" + tail).ok());
  EXPECT_FALSE(CheckChatTemplate(rules + "{# " + tail).ok());
}

}  // namespace
}  // namespace atod
