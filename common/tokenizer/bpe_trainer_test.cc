#include "common/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <random>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/tokenizer/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::vector<std::string> Texts() {
  std::vector<std::string> texts;
  std::mt19937 random(11);
  const std::vector<std::string> words = {"apple", "mug",  "countertop", "take",
                                          "from",  "open", "fridge",     "aaa"};
  for (int i = 0; i < 200; ++i) {
    std::string text;
    for (int k = 0; k < 6; ++k) {
      text += words[random() % words.size()] + " " +
              std::to_string(random() % 4) + (random() % 5 == 0 ? ".\n" : " ");
    }
    texts.push_back(text);
  }
  return texts;
}

json Train(const std::vector<std::string>& texts, BpeTrainer::Options options) {
  BpeTrainer trainer(options);
  for (const std::string& text : texts) trainer.Add(text);
  const auto result = trainer.Train();
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? json::parse(*result) : json();
}

// The same rule by counting all pairs anew before every merge.
json SlowMerges(const std::vector<std::string>& texts, size_t count,
                const json& vocab) {
  std::vector<std::vector<std::string>> pieces;
  for (const std::string& text : texts) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = PieceEnd(SplitRule::kGpt2, text, at);
      std::vector<std::string> symbols;
      for (const char c : text.substr(at, end - at)) {
        symbols.push_back(c == ' '    ? "\xC4\xA0"
                          : c == '\n' ? "\xC4\x8A"
                                      : std::string(1, c));
      }
      pieces.push_back(symbols);
      at = end;
    }
  }
  json merges = json::array();
  while (merges.size() < count) {
    std::map<std::pair<int, int>, int> counts;
    const auto id = [&](const std::string& s) { return vocab[s].get<int>(); };
    std::map<std::pair<int, int>, std::pair<std::string, std::string>> names;
    for (const auto& symbols : pieces) {
      for (size_t k = 0; k + 1 < symbols.size(); ++k) {
        const std::pair<int, int> pair = {id(symbols[k]), id(symbols[k + 1])};
        ++counts[pair];
        names[pair] = {symbols[k], symbols[k + 1]};
      }
    }
    const auto best = std::max_element(
        counts.begin(), counts.end(),
        [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == counts.end() || best->second < 2) break;
    const auto [left, right] = names[best->first];
    merges.push_back({left, right});
    for (auto& symbols : pieces) {
      for (size_t k = 0; k + 1 < symbols.size(); ++k) {
        if (symbols[k] == left && symbols[k + 1] == right) {
          symbols[k] += right;
          symbols.erase(symbols.begin() + static_cast<int64_t>(k) + 1);
        }
      }
    }
  }
  return merges;
}

TEST(BpeTrainerTest, TheMergesAreThoseOfThePlainRule) {
  const json trained = Train(Texts(), {.vocab_size = 256 + 3 + 40});
  const json& model = trained["model"];
  EXPECT_EQ(model["merges"].size(), 40u);
  EXPECT_EQ(model["merges"],
            SlowMerges(Texts(), model["merges"].size(), model["vocab"]));
}

TEST(BpeTrainerTest, TheOrderOfTheTextsDoesNotMatter) {
  std::vector<std::string> texts = Texts();
  const json first = Train(texts, {});
  std::reverse(texts.begin(), texts.end());
  EXPECT_EQ(Train(texts, {}), first);
}

TEST(BpeTrainerTest, MergingEndsWhenEveryPieceIsOneToken) {
  const json trained = Train({"ab ab ab"}, {.vocab_size = 5000});
  // "ab", " a" + "b" or " " + "ab": two merges, whichever comes first.
  EXPECT_EQ(trained["model"]["vocab"].size(), 258u);
}

TEST(BpeTrainerTest, SpecialTokensAreNotLearnedFrom) {
  const json trained = Train({"<|im_end|><|im_end|><|im_end|>xy"}, {});
  EXPECT_EQ(trained["model"]["merges"].size(), 0u);
  EXPECT_EQ(trained["added_tokens"][2]["content"], "<|im_end|>");
  EXPECT_EQ(trained["added_tokens"][2]["id"], 258);
}

TEST(BpeTrainerTest, BadOptionsAreNamed) {
  BpeTrainer small({.vocab_size = 258});
  small.Add("text");
  EXPECT_THAT(small.Train().status().message(),
              HasSubstr("vocab_size: found 258, expected at least 259"));
  EXPECT_THAT(BpeTrainer({}).Train().status().message(),
              HasSubstr("data: found no text"));
}

class WrittenTest : public ::testing::TestWithParam<SplitRule> {};

TEST_P(WrittenTest, WhatIsWrittenLoadsAndKeepsEveryText) {
  BpeTrainer trainer({.vocab_size = 290, .split = GetParam()});
  for (const std::string& text : Texts()) trainer.Add(text);
  const std::string dir = ::testing::TempDir() + "/trained";
  ASSERT_TRUE(trainer.Write(dir).ok());
  const auto tokenizer = Tokenizer::Load(dir);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 290);
  EXPECT_EQ((*tokenizer)->eos_id(), 289);
  for (const std::string& text :
       {Texts()[0], std::string("take apple 1<|im_end|>"),
        std::string("\xE4\xBB\x8A\xE5\xA4\xA9 \xF0\x9F\x98\x80\r\n")}) {
    EXPECT_EQ((*tokenizer)->Decode((*tokenizer)->Encode(text)), text);
  }
  std::filesystem::remove_all(dir);
}

INSTANTIATE_TEST_SUITE_P(Rules, WrittenTest,
                         ::testing::Values(SplitRule::kQwen2,
                                           SplitRule::kGpt2));

}  // namespace
}  // namespace atod
