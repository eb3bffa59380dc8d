#include "common/prompt/render.h"

#include "common/prompt/household_prompts.h"
#include "common/prompt/paper_prompts.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

PromptSpec TinySpec() {
  PromptSpec spec;
  spec.name = "tiny";
  spec.first = "F {task_description}|{current_observation}";
  spec.next =
      "N {step_count}/{current_step} {history_length}[{action_history}] "
      "({admissible_actions}) {field.hint} {current_observation}";
  spec.history_line = "{index}:{observation}>{action}>{next_observation}";
  spec.history_join = ";";
  spec.window = 2;
  spec.admissible_item = "<{action}>";
  spec.admissible_join = ",";
  spec.admissible_hidden = {"help"};
  return spec;
}

PromptInputs ThirdTurn() {
  PromptInputs inputs;
  inputs.task = "task";
  inputs.observation = "o3";
  inputs.admissible = {"a", "help", "b"};
  inputs.fields = {{"hint", "warm"}};
  inputs.history = {{"o0", "a0"}, {"o1", "a1"}, {"o2", "a2"}};
  inputs.turn_index = 3;
  return inputs;
}

TEST(RenderPromptTest, TheFirstTurnHasItsOwnTemplate) {
  PromptInputs inputs;
  inputs.task = "t";
  inputs.observation = "o";
  EXPECT_EQ(RenderPrompt(TinySpec(), inputs), "F t|o");
}

TEST(RenderPromptTest, TheWindowKeepsTheNumbersOfTheEpisode) {
  const std::string want = "N 3/4 2[2:o1>a1>o2;3:o2>a2>o3] (<a>,<b>) warm o3";
  PromptInputs inputs = ThirdTurn();
  EXPECT_EQ(RenderPrompt(TinySpec(), inputs), want);
  inputs.history.erase(inputs.history.begin());
  EXPECT_EQ(RenderPrompt(TinySpec(), inputs), want);
}

TEST(RenderPromptTest, ALaterTurnOfAGrowingEpisodeShowsWhatIsNew) {
  PromptSpec spec = TinySpec();
  EXPECT_TRUE(CheckLayout(spec, kWindowed).ok());
  EXPECT_THAT(CheckLayout(spec, kGrowing).message(),
              HasSubstr("layout: found growing, expected windowed, the layout "
                        "that prompt set tiny has a template for"));
  spec.grow = "\n{current_step}: {current_observation} {field.hint}>";
  EXPECT_TRUE(CheckLayout(spec, kGrowing).ok());
  EXPECT_THAT(CheckLayout(spec, "wide").message(), HasSubstr("found wide"));
  EXPECT_EQ(RenderGrow(spec, ThirdTurn()), "\n4: o3 warm>");
  spec.grow = "{action}";
  EXPECT_THAT(CheckPromptSpec(spec).message(), HasSubstr("prompt tiny.grow"));
}

TEST(RenderPromptTest, TextOfTheEnvironmentIsNotExpandedAgain) {
  PromptInputs inputs;
  inputs.task = "{current_observation}";
  inputs.observation = "{task_description} {field.hint}";
  EXPECT_EQ(RenderPrompt(TinySpec(), inputs),
            "F {current_observation}|{task_description} {field.hint}");
}

TEST(RenderPromptTest, OtherBracesAndUnknownNamesStay) {
  PromptSpec spec = TinySpec();
  spec.first = "{} {\"k\": {task_description}} {nobody} {field.none}. {";
  PromptInputs inputs;
  inputs.task = "t";
  EXPECT_EQ(RenderPrompt(spec, inputs), "{} {\"k\": t} {nobody} . {");
}

TEST(RenderPromptTest, APromptOfTooManyCharactersUsesTheFirstTemplate) {
  PromptSpec spec = TinySpec();
  PromptInputs inputs = ThirdTurn();
  inputs.observation = "\xC3\xA4";  // one character, two bytes
  inputs.history.back() = {"", ""};
  const std::string next = RenderPrompt(spec, inputs);
  spec.max_prompt_chars = static_cast<uint32_t>(next.size()) - 2;
  EXPECT_EQ(RenderPrompt(spec, inputs), next);
  --spec.max_prompt_chars;
  EXPECT_EQ(RenderPrompt(spec, inputs), "F task|\xC3\xA4");
}

TEST(CheckPromptSpecTest, UnknownPlaceholdersAreNamed) {
  EXPECT_TRUE(CheckPromptSpec(TinySpec()).ok());
  PromptSpec spec = TinySpec();
  spec.next = "{task_descripton}";
  EXPECT_THAT(CheckPromptSpec(spec).message(),
              HasSubstr("prompt tiny.next: found {task_descripton}"));
  spec = TinySpec();
  spec.history_line = "{field.hint}";
  EXPECT_THAT(CheckPromptSpec(spec).message(), HasSubstr("history_line"));
}

TEST(HouseholdPromptsTest, ThePaperSetHasNoHistoryOnTheFirstTurn) {
  const PromptSpec spec = PaperPromptSpec();
  EXPECT_TRUE(CheckPromptSpec(spec).ok());
  PromptInputs inputs = ThirdTurn();
  const std::string next = RenderPrompt(spec, inputs);
  EXPECT_THAT(next, HasSubstr("is to: task.\nPrior to this step, you have "
                              "already taken 3 step(s)."));
  EXPECT_THAT(next, HasSubstr("you took: [Observation 2: 'o1', Action 2: "
                              "'a1']\n[Observation 3: 'o2', Action 3: 'a2']\n"
                              "You are now at step 4 and"));
  EXPECT_THAT(next, HasSubstr("observation is: o3\nYour admissible actions of "
                              "the current situation are: [['a'\n 'b']].\n\n"));
  inputs.turn_index = 0;
  inputs.history.clear();
  const std::string first = RenderPrompt(spec, inputs);
  EXPECT_THAT(first, HasSubstr("is to: task.\nYou are now at step 1 and"));
  EXPECT_THAT(first, Not(HasSubstr("Prior")));
}

TEST(HouseholdPromptsTest, TheCompactSetShowsTheFieldsOfTheEnvironment) {
  const PromptSpec spec = CompactPromptSpec();
  EXPECT_TRUE(CheckPromptSpec(spec).ok());
  PromptInputs inputs;
  inputs.task = "cool some apple and put it in countertop.";
  inputs.fields = {
      {"holding", "nothing"},
      {"unchecked", "countertop* 1, shelf 1"},
      {"checked", "fridge 1"},
      {"recent", "go to fridge 1, open fridge 1"},
      {"text", "You open the fridge 1. In it, you see a apple* 1."}};
  EXPECT_EQ(RenderPrompt(spec, inputs),
            "Task: cool some apple and put it in countertop.\n"
            "Holding: nothing.\n"
            "New: countertop* 1, shelf 1.\n"
            "Checked: fridge 1.\n"
            "Last: go to fridge 1, open fridge 1.\n"
            "You open the fridge 1. In it, you see a apple* 1.\n"
            ">");
}

TEST(PaperPromptsTest, WebshopAndSearchHaveNoHistoryOnTheFirstTurn) {
  for (const PromptSpec& spec :
       {PaperWebshopPromptSpec(), PaperSearchPromptSpec()}) {
    EXPECT_TRUE(CheckPromptSpec(spec).ok());
    PromptInputs inputs = ThirdTurn();
    EXPECT_THAT(RenderPrompt(spec, inputs),
                HasSubstr("Prior to this step, you have already taken 3 "));
    inputs.turn_index = 0;
    inputs.history.clear();
    EXPECT_THAT(RenderPrompt(spec, inputs), Not(HasSubstr("Prior")));
  }
  EXPECT_THAT(RenderPrompt(PaperSearchPromptSpec(), ThirdTurn()),
              HasSubstr("History:\nStep 1:a0 o1\n\nStep 2:a1 o2\n\nStep "
                        "3:a2 o3\n\n\nNow it's"));
}

class FitPromptTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::Load("common/tokenizer/testdata/gpt2");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(FitPromptTest, APromptThatFitsIsWhole) {
  const auto fitted = FitPrompt(TinySpec(), ThirdTurn(), *tokenizer_, 1000);
  ASSERT_TRUE(fitted.ok());
  EXPECT_EQ(fitted->cut_tokens, 0u);
  EXPECT_EQ(tokenizer_->Decode(fitted->tokens),
            RenderPrompt(TinySpec(), ThirdTurn()));
}

TEST_F(FitPromptTest, BehindAContextTheHistoryGoesAndTheContextStays) {
  const auto text = [&](uint32_t most) {
    const auto fitted =
        FitContextPrompt(TinySpec(), ThirdTurn(), "skill", *tokenizer_, most);
    return fitted.ok() ? tokenizer_->Decode(fitted->tokens)
                       : std::string(fitted.status().message());
  };
  const std::string whole = text(1000);
  EXPECT_EQ(whole, "skill\n" + RenderPrompt(TinySpec(), ThirdTurn()));
  // Ever less room: fewer records, then the first turn's form, then none.
  std::vector<std::string> seen = {whole};
  for (uint32_t most = 60; most > 0; --most)
    if (text(most) != seen.back()) seen.push_back(text(most));
  ASSERT_GE(seen.size(), 4u);
  EXPECT_EQ(seen[1], "skill\nN 3/4 1[3:o2>a2>o3] (<a>,<b>) warm o3");
  EXPECT_EQ(seen[2], "skill\nN 3/4 0[] (<a>,<b>) warm o3");
  EXPECT_EQ(seen[3], "skill\nF task|o3");
  EXPECT_THAT(seen.back(), HasSubstr("behind its context: found "));
}

TEST_F(FitPromptTest, TheOverflowPolicyDecidesAboutLongPrompts) {
  PromptSpec spec = TinySpec();
  const PromptInputs inputs = ThirdTurn();
  const auto full = FitPrompt(spec, inputs, *tokenizer_, 1000);
  ASSERT_TRUE(full.ok());
  const auto size = static_cast<uint32_t>(full->tokens.size());

  const auto refused = FitPrompt(spec, inputs, *tokenizer_, size - 3);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.status().message(), HasSubstr("prompt set tiny: found"));

  spec.overflow = PromptSpec::Overflow::kCutLeft;
  const auto cut = FitPrompt(spec, inputs, *tokenizer_, size - 3);
  ASSERT_TRUE(cut.ok());
  EXPECT_EQ(cut->cut_tokens, 3u);
  EXPECT_EQ(cut->tokens,
            std::vector<int32_t>(full->tokens.begin() + 3, full->tokens.end()));

  spec.overflow = PromptSpec::Overflow::kFirstTemplate;
  spec.max_prompt_tokens = size - 3;  // the spec's own limit counts too
  const auto first = FitPrompt(spec, inputs, *tokenizer_, 1000);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(tokenizer_->Decode(first->tokens), "F task|o3");
  EXPECT_EQ(first->cut_tokens, size - first->tokens.size());
  EXPECT_FALSE(FitPrompt(spec, inputs, *tokenizer_, 2).ok());
}

TEST_F(FitPromptTest, AChatSpecIsWrappedIntoTheChatFormat) {
  PromptSpec spec = TinySpec();
  spec.chat = true;
  PromptInputs inputs;
  const auto fitted = FitPrompt(spec, inputs, *tokenizer_, 1000);
  ASSERT_TRUE(fitted.ok());
  EXPECT_EQ(fitted->tokens.front(), *tokenizer_->TokenId("<|im_start|>"));
  EXPECT_THAT(tokenizer_->Decode(fitted->tokens),
              EndsWith("<|im_end|>\n<|im_start|>assistant\n"));
}

TEST_F(FitPromptTest, AGrowingChatEndsTheAnswerBeforeTheNextMessage) {
  PromptSpec spec = TinySpec();
  spec.grow = "{current_observation}";
  const PromptInputs inputs = ThirdTurn();
  const int32_t end = *tokenizer_->TokenId("<|im_end|>");
  const std::string message =
      "\n<|im_start|>user\no3<|im_end|>\n<|im_start|>assistant\n";
  const auto grown = [&](int32_t last) {
    return tokenizer_->Decode(
        GrowPrompt(spec, inputs, *tokenizer_, last).value());
  };
  EXPECT_EQ(grown(end), "o3");
  spec.chat = true;
  EXPECT_EQ(grown(end), message);
  EXPECT_EQ(grown(end + 1), "<|im_end|>" + message);  // cut at its limit
}

}  // namespace
}  // namespace atod
