#include "services/learner/sft_trainer.h"

#include <unistd.h>

#include <filesystem>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/model/language_model.h"
#include "common/model/model_files.h"
#include "common/model/weights_io.h"
#include "common/tokenizer/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace atod::learner {
namespace {

// The 256 bytes as GPT-2 spells them, and the end token: no merges.
void WriteTokenizer(const std::string& dir) {
  nlohmann::json vocab;
  int next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool printable =
        (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    const int code = printable ? b : next++;
    std::string spelled;
    if (code < 0x80) {
      spelled = static_cast<char>(code);
    } else {
      spelled = {static_cast<char>(0xC0 | code >> 6),
                 static_cast<char>(0x80 | (code & 0x3F))};
    }
    vocab[spelled] = b;
  }
  const nlohmann::json tokenizer = {{"version", "1.0"},
                                    {"added_tokens",
                                     {{{"id", 256},
                                       {"content", "<|im_end|>"},
                                       {"single_word", false},
                                       {"lstrip", false},
                                       {"rstrip", false},
                                       {"normalized", false},
                                       {"special", true}}}},
                                    {"normalizer", nullptr},
                                    {"pre_tokenizer",
                                     {{"type", "ByteLevel"},
                                      {"add_prefix_space", false},
                                      {"trim_offsets", true},
                                      {"use_regex", true}}},
                                    {"decoder",
                                     {{"type", "ByteLevel"},
                                      {"add_prefix_space", false},
                                      {"trim_offsets", true},
                                      {"use_regex", true}}},
                                    {"model",
                                     {{"type", "BPE"},
                                      {"vocab", vocab},
                                      {"merges", nlohmann::json::array()}}}};
  ASSERT_TRUE(WriteFileAtomic(dir + "/tokenizer.json", tokenizer.dump()).ok());
}

class Sft : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = testing::TempDir() + "/atod_sft_test." + std::to_string(getpid());
    std::filesystem::remove_all(dir_);
    ASSERT_TRUE(MakeDirs(dir_ + "/init").ok());
    WriteTokenizer(dir_ + "/init");
    model::ModelConfig c;
    c.vocab_size = 257;
    c.hidden_size = 32;
    c.intermediate_size = 64;
    c.num_hidden_layers = 2;
    c.num_attention_heads = 2;
    c.num_key_value_heads = 2;
    c.head_dim = 16;
    c.max_position_embeddings = 64;
    c.rope_theta = 1e4;
    c.tie_word_embeddings = true;
    ASSERT_TRUE(model::CreateModel(c, "unit", 1, dir_ + "/init").ok());
    options_.model_dir = dir_ + "/init";
    options_.data_path = dir_ + "/demos.jsonl";
    options_.out_dir = dir_ + "/out";
    options_.updates = 60;
    options_.batch_rows = 8;
    options_.warmup = 5;
  }
  void WriteData(const std::string& text) {
    ASSERT_TRUE(WriteFileAtomic(options_.data_path, text).ok());
  }

  // Mean log-prob of a response and its end under what was written.
  float ScoreOf(const std::string& context, const std::string& response) {
    const auto tokenizer = Tokenizer::Load(options_.out_dir).value();
    auto m = model::LanguageModel::Open(options_.out_dir, {}).value();
    model::ScoredSequence s;
    s.tokens = tokenizer->Encode(context);
    const auto begin = static_cast<uint32_t>(s.tokens.size());
    const std::vector<int32_t> more = tokenizer->Encode(response);
    s.tokens.insert(s.tokens.end(), more.begin(), more.end());
    s.tokens.push_back(256);
    s.spans = {{begin, static_cast<uint32_t>(more.size() + 1)}};
    const std::vector<float> scored = m->Score({s}, {}).value().logprobs;
    return std::accumulate(scored.begin(), scored.end(), 0.0f) /
           static_cast<float>(scored.size());
  }
  float ScoreOfGreen() { return ScoreOf("leaf>", " green"); }

  std::string dir_;
  SftOptions options_;
};

constexpr char kDemos[] = R"({"prompt": "apple>", "response": " red"}
{"prompt": "leaf>", "response": " green"}

{"prompt": "sky at noon>", "response": " blue"}
)";

TEST_F(Sft, LearnsItsDemonstrationsAndWritesACompleteFolder) {
  WriteData(kDemos);
  std::vector<SftProgress> reports;
  const auto done =
      TrainSft(options_, [&](const SftProgress& p) { reports.push_back(p); });
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(reports.back().update, 60);
  EXPECT_EQ(done->update, 60);
  EXPECT_GT(ScoreOfGreen(), -0.1f);
}

// The model's files name more than one end token; what is taught is one of
// those at which generating stops, and a row that has one gets no second.
TEST_F(Sft, TeachesOneEndTokenOnceOfThoseThatGeneratingStopsAt) {
  const auto loss_of = [&](const std::string& response,
                           const std::string& declared) {
    EXPECT_TRUE(WriteFileAtomic(options_.model_dir + "/generation_config.json",
                                "{\"eos_token_id\": " + declared + "}")
                    .ok());
    WriteData("{\"prompt\": \"leaf>\", \"response\": \"" + response + "\"}");
    options_.updates = 1;
    const auto done = TrainSft(options_, [](const SftProgress&) {});
    EXPECT_TRUE(done.ok()) << done.status();
    return done.ok() ? done->loss : 0;
  };
  const double plain = loss_of(" green", "256");
  EXPECT_EQ(loss_of(" green<|im_end|>", "256"), plain);
  EXPECT_EQ(loss_of(" green<|im_end|>", "[256, 5]"), plain);
  EXPECT_NE(loss_of(" green", "5"), plain);
}

TEST_F(Sft, AFolderThatHoldsSomethingElseIsNotWrittenTo) {
  WriteData(kDemos);
  ASSERT_TRUE(MakeDirs(options_.out_dir).ok());
  ASSERT_TRUE(WriteFileAtomic(options_.out_dir + "/thesis.tex", "x").ok());
  const auto done = TrainSft(options_, [](const SftProgress&) {});
  EXPECT_THAT(done.status().message(),
              testing::HasSubstr("/out: thesis.tex: found something"));
}

TEST_F(Sft, IsDeterministicForAnyNumberOfThreads) {
  WriteData(kDemos);
  options_.updates = 10;
  std::vector<std::string> hashes;
  for (const uint32_t threads : {1, 2}) {
    options_.threads = threads;
    ASSERT_TRUE(TrainSft(options_, [](const SftProgress&) {}).ok());
    auto m = model::LanguageModel::Open(options_.out_dir, {}).value();
    hashes.push_back(m->WeightsHash().value());
  }
  EXPECT_EQ(hashes[0], hashes[1]);
}

TEST_F(Sft, Bfloat16TrainsOnTorchAndIsRefusedWhereItMustBeDeterministic) {
  WriteData(kDemos);
  options_.dtype = "bfloat16";
  std::string back_end;
  const auto done = TrainSft(
      options_, [](const SftProgress&) {},
      [&](const model::BackEnd& b) { back_end = b.name + " " + b.dtype; });
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(back_end, "torch bfloat16");
  EXPECT_GT(ScoreOfGreen(), -0.3f);
  options_.deterministic = true;
  EXPECT_THAT(TrainSft(options_, [](const SftProgress&) {}).status().message(),
              testing::HasSubstr("deterministic: found dtype bfloat16"));
}

TEST_F(Sft, TurnsOfARowAreOneSequenceAndThoseNotToTrainAreContext) {
  WriteData(R"({"turns": [{"prompt": "leaf>", "response": " red", "train":)"
            R"( false}, {"prompt": "leaf>", "response": " green"}]})");
  const auto done = TrainSft(options_, [](const SftProgress&) {});
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_GT(ScoreOf("leaf> red<|im_end|>leaf>", " green"), -0.1f);
  EXPECT_LT(ScoreOf("leaf>", " red"), -1.0f);
}

TEST_F(Sft, BadRowsAreNamedByLine) {
  const auto message = [&](const std::string& data) {
    WriteData(data);
    return std::string(
        TrainSft(options_, [](const SftProgress&) {}).status().message());
  };
  using testing::HasSubstr;
  EXPECT_THAT(message("{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\"}"),
              HasSubstr("demos.jsonl:2: prompt"));
  EXPECT_THAT(message("{\"prompt\": \"a\", \"response\": 3}"),
              HasSubstr("demos.jsonl:1: response"));
  EXPECT_THAT(message("{\"prompt\": \"" + std::string(80, 'a') +
                      "\", \"response\": \"b\"}"),
              HasSubstr("at most 64"));
  for (const char* turns :
       {"[]", R"([{"prompt": "a", "response": "b", "train": false}])"})
    EXPECT_THAT(message(absl::StrCat("{\"turns\": ", turns, "}")),
                HasSubstr("demos.jsonl:1: turns: found"));
  EXPECT_THAT(message(R"({"turns": [{"prompt": "a", "response": "b"}, {}]})"),
              HasSubstr("demos.jsonl:1: turns[1].prompt"));
  EXPECT_THAT(
      message(
          R"({"turns": [{"prompt": "a", "response": "b", "train": "no"}]})"),
      HasSubstr("demos.jsonl:1: turns[0].train: found"));
  EXPECT_THAT(message("{\"prompt\": \"a\", \"response\": \"\"}"),
              HasSubstr("demos.jsonl:1: response: found no text"));
  EXPECT_THAT(message(""), HasSubstr("no rows"));
}

TEST(SftLearningRate, WarmsUpAndEndsAtATenth) {
  SftOptions o;
  o.lr = 1;
  o.warmup = 10;
  o.updates = 110;
  EXPECT_NEAR(SftLearningRate(o, 0), 0.1, 1e-9);
  EXPECT_NEAR(SftLearningRate(o, 9), 1, 1e-9);
  EXPECT_NEAR(SftLearningRate(o, 60), 0.55, 1e-9);
  EXPECT_NEAR(SftLearningRate(o, 110), 0.1, 1e-9);
  o.schedule = "constant";
  EXPECT_NEAR(SftLearningRate(o, 100), 1, 1e-9);
}

}  // namespace
}  // namespace atod::learner
