// The hand-written scanners against the regular expressions themselves.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "common/tokenizer/pre_tokenizer.h"

#include <pcre2.h>

#include <random>
#include <string>
#include <vector>

#include "common/tokenizer/unicode.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

class Oracle {
 public:
  explicit Oracle(std::string_view pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()),
                          pattern.size(), PCRE2_UTF | PCRE2_UCP, &error,
                          &offset, nullptr);
    match_ = pcre2_match_data_create_from_pattern(code_, nullptr);
  }
  ~Oracle() {
    pcre2_match_data_free(match_);
    pcre2_code_free(code_);
  }

  std::vector<std::string> Split(const std::string& text) const {
    std::vector<std::string> out;
    for (size_t at = 0; at < text.size();) {
      const int found =
          pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()),
                      text.size(), at, PCRE2_ANCHORED, match_, nullptr);
      if (found <= 0) return {"no match"};
      const size_t end = pcre2_get_ovector_pointer(match_)[1];
      out.push_back(text.substr(at, end - at));
      at = end;
    }
    return out;
  }

 private:
  pcre2_code* code_;
  pcre2_match_data* match_;
};

std::vector<std::string> Scan(SplitRule rule, const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = PieceEnd(rule, text, at);
    out.push_back(text.substr(at, end - at));
    at = end;
  }
  return out;
}

class ScannerTest : public ::testing::TestWithParam<SplitRule> {};

TEST_P(ScannerTest, RandomTextsFallIntoThePiecesOfThePattern) {
  const Oracle oracle(SplitPattern(GetParam()));
  // Dense in what the alternatives of the patterns tell apart.
  const std::vector<std::string> parts = {" ",
                                          "  ",
                                          "\n",
                                          "\r\n",
                                          "\t",
                                          "\xC2\xA0",
                                          "\xE3\x80\x80",
                                          "\xE2\x80\xA8",
                                          "\xC2\x85",
                                          "'",
                                          "'s",
                                          "'S",
                                          "'ll",
                                          "'LL",
                                          "'re",
                                          "'vE",
                                          "'x",
                                          "'\xC5\xBF",
                                          "a",
                                          "Word",
                                          "\xC3\xA9",
                                          "e\xCC\x81",
                                          "\xE4\xBB\x8A",
                                          "1",
                                          "23",
                                          "\xD9\xA3",
                                          "\xC2\xBD",
                                          "!",
                                          "...",
                                          "_",
                                          "\xF0\x9F\x98\x80",
                                          "\xE2\x82\xAC",
                                          "<|im_end|>",
                                          "\x01"};
  std::mt19937 random(3);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (uint32_t n = random() % 9; n > 0; --n) {
      text += parts[random() % parts.size()];
    }
    ASSERT_EQ(Scan(GetParam(), text), oracle.Split(text)) << text;
  }
}

TEST_P(ScannerTest, EveryCharacterHasTheClassOfThePattern) {
  const Oracle oracle(SplitPattern(GetParam()));
  // What PCRE2's tables know: the letters and numbers of Unicode 14.
  for (char32_t c = 1; c < 0x2FA20; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text = " x";
    AppendUtf8(c, text);
    const bool newer = c == 0x1C89 || c == 0x1C8A || c >= 0x10000 ||
                       (c >= 0xA7C0 && c <= 0xA7DF);
    if (newer && ClassOf(c) != CharClass::kOther) continue;
    text += "1 ";
    AppendUtf8(c, text);
    ASSERT_EQ(Scan(GetParam(), text), oracle.Split(text))
        << std::hex << uint32_t{c};
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, ScannerTest,
                         ::testing::Values(SplitRule::kQwen2, SplitRule::kGpt2),
                         [](const auto& info) {
                           return info.param == SplitRule::kQwen2 ? "Qwen2"
                                                                  : "Gpt2";
                         });

TEST(SplitRuleTest, OnlyTheKnownPatternsAreKnown) {
  EXPECT_EQ(FindSplitRule(SplitPattern(SplitRule::kQwen2)), SplitRule::kQwen2);
  EXPECT_EQ(FindSplitRule(SplitPattern(SplitRule::kGpt2)), SplitRule::kGpt2);
  EXPECT_EQ(FindSplitRule("\\p{L}+"), std::nullopt);
}

}  // namespace
}  // namespace atod
