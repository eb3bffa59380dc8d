#include "common/tokenizer/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <sstream>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/tokenizer/difference.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

constexpr char kQwen2[] = "common/tokenizer/testdata/qwen2";
constexpr char kGpt2[] = "common/tokenizer/testdata/gpt2";

std::unique_ptr<Tokenizer> Load(const std::string& path) {
  auto tokenizer = Tokenizer::Load(path);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

// tests/peers/tokenizer_parity.py made the files with Hugging Face's library.
class GoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTest, IdsAndTextsEqualThoseOfHuggingFace) {
  const auto tokenizer = Load(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  std::istringstream lines(
      *ReadFile(std::string(GetParam()) + "/golden.jsonl"));
  std::string line;
  int count = 0;
  for (; std::getline(lines, line); ++count) {
    const json row = json::parse(line);
    EXPECT_EQ(tokenizer->Encode(row["text"].get<std::string>()),
              row["ids"].get<Ids>())
        << line;
    EXPECT_EQ(tokenizer->Decode(row["ids"].get<Ids>()),
              row["decoded"].get<std::string>())
        << line;
  }
  EXPECT_GT(count, 200);
}

INSTANTIATE_TEST_SUITE_P(Patterns, GoldenTest,
                         ::testing::Values(kQwen2, kGpt2));

TEST(TokenizerTest, SpecialTokensInsideTheTextAreOneTokenEach) {
  const auto tokenizer = Load(kGpt2);
  const int32_t start = *tokenizer->TokenId("<|im_start|>");
  const int32_t end = *tokenizer->TokenId("<|im_end|>");
  const Ids ids = tokenizer->Encode("<|im_start|><|im_end|><|im_start|>");
  EXPECT_THAT(ids, ElementsAre(start, end, start));
  EXPECT_EQ(tokenizer->Decode(ids), "<|im_start|><|im_end|><|im_start|>");
  EXPECT_EQ(tokenizer->Decode(ids, /*skip_special=*/true), "");
  EXPECT_EQ(tokenizer->eos_id(), end);
  EXPECT_EQ(tokenizer->TokenId("<|nobody|>"), std::nullopt);
}

TEST(TokenizerTest, TheEmptyTextHasNoTokens) {
  EXPECT_TRUE(Load(kGpt2)->Encode("").empty());
  EXPECT_EQ(Load(kGpt2)->Decode({}), "");
}

TEST(TokenizerTest, BytesThatAreNotUtf8CountAsReplacementCharacters) {
  const auto tokenizer = Load(kQwen2);
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("a\xFF"
                                                "b\xE2\x82")),
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD");
}

TEST(TokenizerTest, IdsOutsideTheVocabularyDecodeToNothing) {
  const auto tokenizer = Load(kGpt2);
  EXPECT_EQ(tokenizer->Decode({-1, tokenizer->vocab_size(), 1 << 30}), "");
}

TEST(TokenizerTest, ALongRunIsEncodedInReasonableTime) {
  // Quadratic merging would take hours.
  const auto tokenizer = Load(kQwen2);
  const std::string text(2'000'000, 'a');
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
}

TEST(TokenizerTest, TheFileHashIsThatOfItsBytes) {
  EXPECT_EQ(Load(kGpt2)->file_hash(),
            HashHex(*ReadFile(std::string(kGpt2) + "/tokenizer.json")));
  EXPECT_NE(Load(kGpt2)->hash(), Load(kQwen2)->hash());
}

class TokenizerFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = ::testing::TempDir() + "/tokenizer_files";
    std::filesystem::remove_all(dir_);
    ASSERT_TRUE(MakeDirs(dir_).ok());
    root_ = json::parse(*ReadFile(std::string(kQwen2) + "/tokenizer.json"));
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void Write(const char* name, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomic(dir_ + "/" + name, text).ok());
  }
  // What Load says about the fixture after `change`.
  std::string Error(const std::function<void(json&)>& change) {
    json root = root_;
    change(root);
    Write("tokenizer.json", root.dump());
    const auto tokenizer = Tokenizer::Load(dir_);
    return tokenizer.ok() ? "ok" : std::string(tokenizer.status().message());
  }

  std::string dir_;
  json root_;
};

TEST_F(TokenizerFilesTest, BrokenFilesAreRefusedByFileAndField) {
  EXPECT_EQ(Error([](json&) {}), "ok");
  EXPECT_THAT(Error([](json& j) { j["model"].erase("vocab"); }),
              HasSubstr("tokenizer.json: model.vocab: found null"));
  EXPECT_THAT(Error([](json& j) { j["model"]["vocab"]["x"] = -1; }),
              HasSubstr("model.vocab[\"x\"]: found -1"));
  EXPECT_THAT(Error([](json& j) { j["model"]["vocab"]["xyzzy"] = 5; }),
              HasSubstr("expected an id that no other token has"));
  EXPECT_THAT(Error([](json& j) { j["model"]["vocab"]["xyzzy"] = 1u << 31; }),
              HasSubstr("model.vocab[\"xyzzy\"]: found 2147483648"));
  EXPECT_THAT(Error([](json& j) { j["model"]["vocab"].erase("!"); }),
              HasSubstr("no token \"!\", expected one for byte 33"));
  EXPECT_THAT(Error([](json& j) { j["model"]["merges"][3] = "a b c"; }),
              HasSubstr("model.merges[3]: found \"a b c\", expected two"));
  EXPECT_THAT(Error([](json& j) {
                j["model"]["merges"][3] = {"a", "zzqq"};
              }),
              HasSubstr("model.merges[3]: found zzqq"));
  EXPECT_THAT(Error([](json& j) { j["model"]["type"] = "Unigram"; }),
              HasSubstr("model.type: found \"Unigram\", expected BPE"));
  EXPECT_THAT(Error([](json& j) { j["model"]["dropout"] = 0.1; }),
              HasSubstr("model.dropout: found 0.1"));
  EXPECT_THAT(Error([](json& j) {
                j["normalizer"] = {{"type", "NFKC"}};
              }),
              HasSubstr("normalizer: found {\"type\":\"NFKC\"}"));
  EXPECT_THAT(Error([](json& j) {
                j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
                    "\\w+";
              }),
              HasSubstr("pattern.Regex: found \"\\\\w+\", expected the pattern "
                        "of Qwen2 or of GPT-2"));
  EXPECT_THAT(Error([](json& j) { j["pre_tokenizer"] = nullptr; }),
              HasSubstr("pre_tokenizer: found null"));
  EXPECT_THAT(Error([](json& j) { j["decoder"] = 7; }),
              HasSubstr("decoder: found 7, expected ByteLevel"));
  EXPECT_THAT(Error([](json& j) { j["added_tokens"][0]["id"] = "x"; }),
              HasSubstr("added_tokens[0]: found"));
  EXPECT_THAT(Error([](json& j) { j["added_tokens"][0]["id"] = 3; }),
              HasSubstr("added_tokens[0].id: found 3"));
  EXPECT_THAT(Error([](json& j) { j = json::array(); }),
              HasSubstr("found [], expected an object"));
  Write("tokenizer.json", "{\n\n  \"model\": {,");
  EXPECT_THAT(Tokenizer::Load(dir_).status().message(),
              HasSubstr("tokenizer.json:3: found"));
  EXPECT_EQ(Tokenizer::Load(dir_ + "/none").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(TokenizerFilesTest, OldMergesAsStringsGiveTheSameIds) {
  const auto before = Load(kQwen2);
  ASSERT_EQ(Error([](json& j) {
              for (json& merge : j["model"]["merges"]) {
                merge = merge[0].get<std::string>() + " " +
                        merge[1].get<std::string>();
              }
            }),
            "ok");
  const std::string text = "You arrive at countertop 1. \xC3\xA9t\xC3\xA9";
  EXPECT_EQ(Load(dir_)->Encode(text), before->Encode(text));
}

TEST_F(TokenizerFilesTest, TheHashIsOfWhatATokenizerDoesNotOfItsFile) {
  const auto original = Load(kQwen2);
  const auto changed = [&](const std::function<void(json&)>& change) {
    EXPECT_EQ(Error(change), "ok");
    return Load(dir_);
  };
  // Written again: merges as strings, a version, what the ids do not hang on.
  const auto again = changed([](json& j) {
    for (json& merge : j["model"]["merges"]) {
      merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    }
    j["version"] = "2.0";
    j["truncation"] = {{"max_length", 5}};
    j["post_processor"] = {{"type", "ByteLevel"}, {"trim_offsets", false}};
    std::reverse(j["added_tokens"].begin(), j["added_tokens"].end());
  });
  EXPECT_EQ(again->hash(), original->hash());
  EXPECT_NE(again->file_hash(), original->file_hash());
  EXPECT_EQ(TokenizerDifference(*again, *original), "");

  const auto difference = [&](const std::function<void(json&)>& change) {
    const auto other = changed(change);
    EXPECT_NE(other->hash(), original->hash());
    return TokenizerDifference(*other, *original) + " | " +
           HashDifference(other->hash(), original->hash());
  };
  EXPECT_THAT(
      difference([](json& j) { j["added_tokens"][5]["content"] = "<tooth>"; }),
      AllOf(HasSubstr("vocabulary: token 705: found \"<tooth>\", "
                      "expected \"<tool>\""),
            HasSubstr("| vocabulary: found 708:")));
  EXPECT_THAT(difference([](json& j) {
                std::swap(j["model"]["merges"][3], j["model"]["merges"][4]);
              }),
              AllOf(HasSubstr("merges: merge 3: found \""),
                    HasSubstr("| merges: found ")));
  EXPECT_THAT(
      difference([](json& j) { j["added_tokens"][5]["rstrip"] = true; }),
      AllOf(HasSubstr("added_tokens: entry 5: found 705 \"<tool>\" "
                      "rstrip, expected 705 \"<tool>\""),
            HasSubstr("| added_tokens: found 8:")));
  EXPECT_THAT(difference([](json& j) { j["normalizer"] = nullptr; }),
              HasSubstr("| pipeline: found qwen2, expected nfc+qwen2"));
  EXPECT_EQ(HashDifference("abc", original->hash()),
            "hash: found abc, expected " + original->hash());
}

TEST_F(TokenizerFilesTest, APostProcessorThatAddsTokensIsRefused) {
  const json sequence = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json special = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  EXPECT_EQ(Error([&](json& j) {
              j["post_processor"] = {{"type", "TemplateProcessing"},
                                     {"single", json::array({sequence})}};
            }),
            "ok");
  EXPECT_THAT(Error([&](json& j) {
                j["post_processor"] = {{"type", "TemplateProcessing"},
                                       {"single", {special, sequence}}};
              }),
              HasSubstr("post_processor: found {"));
  EXPECT_THAT(Error([&](json& j) {
                j["post_processor"] = {
                    {"type", "Sequence"},
                    {"processors",
                     {{{"type", "ByteLevel"}}, {{"type", "BertProcessing"}}}}};
              }),
              HasSubstr("post_processor: found {\"type\":\"BertProcessing\"}"));
}

// A template counts wherever a model may keep it.
TEST_F(TokenizerFilesTest, TheChatTemplateIsFoundInAllItsPlaces) {
  Write("tokenizer.json", root_.dump());
  EXPECT_TRUE(Load(dir_)->template_status().ok());  // none
  const std::string foreign = "{{ messages[0] }}\r\nx\ry";
  const auto refused = [&](const char* name, const json& value) {
    Write(name, json{{"chat_template", value}}.dump());
    const auto tokenizer = Load(dir_);
    std::filesystem::remove(dir_ + "/" + name);
    EXPECT_THAT(tokenizer->template_status().message(),
                HasSubstr(std::string(name) + ": chat_template: found "));
    return tokenizer->chat_template();
  };
  const std::string text = "{{ messages[0] }}\nx\ny";
  EXPECT_EQ(refused("tokenizer_config.json", foreign), text);
  EXPECT_EQ(refused("chat_template.json", foreign), text);
  EXPECT_EQ(refused("tokenizer_config.json", {{"default", foreign}}), text);
  EXPECT_EQ(refused("tokenizer_config.json",
                    {{{"name", "tool_use"}, {"template", "t"}},
                     {{"name", "default"}, {"template", foreign}}}),
            text);
  // Without a default, or of a form that nobody reads: refused all the same.
  EXPECT_EQ(refused("tokenizer_config.json",
                    {{{"name", "tool_use"}, {"template", "t"}}}),
            "");
  EXPECT_EQ(refused("tokenizer_config.json", 7), "");
  EXPECT_EQ(refused("chat_template.json", {{"other", "t"}}), "");
  Write("chat_template.jinja", foreign);
  EXPECT_THAT(Load(dir_)->template_status().message(),
              HasSubstr("chat_template.jinja: chat_template: found a"));
}

TEST_F(TokenizerFilesTest, TheEndTokenComesFromTheFilesBeside) {
  Write("tokenizer.json", root_.dump());
  EXPECT_EQ(Load(dir_)->eos_id(), Load(dir_)->TokenId("<|im_end|>"));
  Write("generation_config.json", R"({"eos_token_id": [7, 8]})");
  EXPECT_EQ(Load(dir_)->eos_id(), 7);
  Write("tokenizer_config.json",
        R"({"eos_token": {"content": "<|endoftext|>"}, "chat_template": "a"})");
  EXPECT_EQ(Load(dir_)->eos_id(), Load(dir_)->TokenId("<|endoftext|>"));
  EXPECT_EQ(Load(dir_)->template_hash(), HashHex("a"));
  Write("chat_template.jinja", "b");
  EXPECT_EQ(Load(dir_)->chat_template(), "b");
  Write("tokenizer_config.json", R"({"eos_token": "<|nobody|>"})");
  EXPECT_THAT(Tokenizer::Load(dir_).status().message(),
              HasSubstr("tokenizer_config.json: eos_token: found "
                        "\"<|nobody|>\""));
}

}  // namespace
}  // namespace atod
