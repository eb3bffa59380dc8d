// Model folders: what is read, what is refused, and agreement with Hugging
// Face transformers on a small checkpoint that it wrote (tests/peers).
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/checkpoint/safetensors.h"
#include "common/model/language_model.h"
#include "common/model/model_config.h"
#include "common/model/model_files.h"
#include "common/model/weights_io.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::model {
namespace {

using testing::HasSubstr;

constexpr char kGolden[] = "common/model/testdata/golden";

ModelConfig Small(bool tied) {
  ModelConfig c;
  c.vocab_size = 50;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_hidden_layers = 1;
  c.num_attention_heads = 2;
  c.num_key_value_heads = 1;
  c.head_dim = 16;
  c.max_position_embeddings = 64;
  c.tie_word_embeddings = tied;
  return c;
}

std::string FreshDir(const std::string& name) {
  const std::string dir = testing::TempDir() + "/atod_checkpoint_test." +
                          std::to_string(getpid()) + "." + name;
  std::filesystem::remove_all(dir);
  return dir;
}

TEST(Checkpoint, SavedModelIsReadBack) {
  for (const bool tied : {true, false}) {
    const std::string dir = FreshDir("saved");
    ModelWeights model = InitWeights(Small(tied), "unit", 11).value();
    ASSERT_TRUE(SaveWeights(model, dir, "float32").ok());
    auto loaded = LoadWeights(dir, {.dtype = "float32"});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(ExportWeights(*loaded->arena, "float32")->root_hash,
              ExportWeights(*model.arena, "float32")->root_hash);
    EXPECT_EQ(ArchHash(loaded->config), ArchHash(model.config));
  }
}

TEST(Checkpoint, ConvertsBetweenDtypes) {
  const std::string a = FreshDir("a"), b = FreshDir("b"), c = FreshDir("c");
  ASSERT_TRUE(CreateModel(Small(true), "hf", 1, a).ok());
  ASSERT_TRUE(ConvertModel(a, b, "bfloat16").ok());
  ASSERT_TRUE(ConvertModel(b, c, "").ok());
  EXPECT_EQ(ReadFile(b + "/model.safetensors").value(),
            ReadFile(c + "/model.safetensors").value());
  const ModelWeights from_a = LoadWeights(a, {.dtype = "bfloat16"}).value();
  const ModelWeights from_c = LoadWeights(c, {.dtype = "bfloat16"}).value();
  EXPECT_EQ(ExportWeights(*from_a.arena, "bfloat16")->root_hash,
            ExportWeights(*from_c.arena, "bfloat16")->root_hash);
}

constexpr char kQwen2[] = "common/tokenizer/testdata/qwen2";  // 708 tokens

// Writes a model of `rows` rows with the fixture's tokenizer beside it.
std::string WithTokenizer(const std::string& name, int64_t rows, bool tied) {
  const std::string dir = FreshDir(name);
  ModelConfig config = Small(tied);
  config.vocab_size = rows;
  EXPECT_TRUE(CreateModel(config, "unit", 5, dir, kQwen2).ok());
  return dir;
}

TEST(Checkpoint, RowsWithoutATokenAreNoPartOfTheModelAndAreWrittenBack) {
  for (const bool tied : {true, false}) {
    const std::string padded = WithTokenizer("padded", 768, tied);
    ModelWeights model = LoadWeights(padded, {.dtype = "float32"}).value();
    EXPECT_EQ(model.config.vocab_size, 708);
    const ScoredSequence s{{3, 4, 5, 6}, {{1, 3}}};
    // As a model that never had the rows.
    const std::string bare = WithTokenizer("bare", 708, tied);
    const auto with = LanguageModel::Open(padded, {}).value();
    const auto without = LanguageModel::Open(bare, {}).value();
    ASSERT_TRUE(without->Install(with->Export("float32").value()).ok());
    EXPECT_EQ(with->Score({s}, {})->logprobs,
              without->Score({s}, {})->logprobs);
    const std::string out = FreshDir("out");
    ASSERT_TRUE(ConvertModel(padded, out, "").ok());
    for (const char* name :
         {"/model.safetensors", "/config.json", "/tokenizer.json"})
      EXPECT_EQ(ReadFile(out + name).value(), ReadFile(padded + name).value())
          << name;
  }
}

TEST(Checkpoint, WritingOverAModelLeavesNothingOfIt) {
  const std::string from = WithTokenizer("from", 708, true);
  const std::string to = WithTokenizer("to", 708, false);
  for (const char* name :
       {"/model-00001-of-00002.safetensors", "/model.safetensors.index.json",
        "/generation_config.json", "/tokenizer_config.json", "/MANIFEST.json",
        "/README.md"})
    ASSERT_TRUE(WriteFileAtomic(to + name, "{}").ok());
  ASSERT_TRUE(WriteFileAtomic(from + "/chat_template.jinja", "t\r\n").ok());
  ASSERT_TRUE(ConvertModel(from, to, "").ok());
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(to))
    names.insert(entry.path().filename());
  EXPECT_THAT(names,
              testing::ElementsAre("README.md", "chat_template.jinja",
                                   "config.json", "golden.jsonl",
                                   "model.safetensors", "tokenizer.json"));
  EXPECT_EQ(ReadFile(to + "/model.safetensors").value(),
            ReadFile(from + "/model.safetensors").value());
  EXPECT_EQ(ReadFile(to + "/chat_template.jinja").value(), "t\r\n");
  // In place: nothing but the weights is touched.
  ASSERT_TRUE(ConvertModel(to, to, "bfloat16").ok());
  EXPECT_EQ(ReadFile(to + "/chat_template.jinja").value(), "t\r\n");
  ASSERT_TRUE(WriteFileAtomic(to + "/thesis.tex", "").ok());
  EXPECT_THAT(ConvertModel(from, to, "").message(),
              HasSubstr("/" + to.substr(to.rfind('/') + 1) +
                        ": thesis.tex: found something that is no part"));
}

TEST(Checkpoint, EveryKeyOfConfigComesBackFromASavedModel) {
  const std::string dir = WithTokenizer("keys", 708, true);
  nlohmann::json config =
      nlohmann::json::parse(ReadFile(dir + "/config.json").value());
  config["eos_token_id"] = {702, 700};
  config["bos_token_id"] = 701;
  config["mine"] = {{"a", 1}};
  ASSERT_TRUE(WriteFileAtomic(dir + "/config.json", config.dump()).ok());
  ModelWeights model = LoadWeights(dir, {.dtype = "float32"}).value();
  const std::string saved = FreshDir("keys_saved");
  ASSERT_TRUE(SaveWeights(model, saved, "float32").ok());
  EXPECT_EQ(ReadFile(saved + "/config.json").value(), config.dump());
  EXPECT_THAT(StopTokens(saved).value(), testing::ElementsAre(700, 702));
}

TEST(Checkpoint, ValuesThatAreNotFiniteAreNeitherReadNorWritten) {
  const std::string dir = FreshDir("nan");
  ModelWeights model = InitWeights(Small(true), "hf", 1).value();
  const auto set = [&](float value) {
    torch::NoGradGuard no_grad;
    model.arena->View(model.arena->values, 2).view(-1)[3] = value;
  };
  const auto names = HasSubstr(
      "model.layers.0.self_attn.q_proj.weight: found 1 values that are NaN");
  set(3.4e38f);  // finite, and too large for bfloat16
  ASSERT_TRUE(SaveWeights(model, dir, "float32").ok());
  EXPECT_TRUE(LoadWeights(dir, {.dtype = "float32"}).ok());
  EXPECT_THAT(LoadWeights(dir, {.dtype = "bfloat16"}).status().message(),
              names);
  EXPECT_THAT(SaveWeights(model, dir, "bfloat16").message(), names);
  set(NAN);
  EXPECT_THAT(SaveWeights(model, dir, "float32").message(), names);
  const std::string path = dir + "/model.safetensors";
  auto file = SafetensorsFile::Open(path).value();
  std::vector<TensorView> tensors = file->tensors();
  std::vector<float> values(32 * 32, 0);
  values[7] = INFINITY;
  for (TensorView& t : tensors)
    if (t.name == "model.layers.0.self_attn.q_proj.weight")
      t.data = absl::MakeConstSpan(
          reinterpret_cast<const std::byte*>(values.data()), 4 * values.size());
  ASSERT_TRUE(WriteSafetensors(path, tensors).ok());
  EXPECT_THAT(LoadWeights(dir, {.dtype = "float32"}).status().message(), names);
}

// Rewrites the tensors of a good folder after `change`; the error of loading.
std::string LoadingFails(
    const std::function<void(std::vector<TensorView>&)>& change) {
  const std::string dir = FreshDir("bad");
  EXPECT_TRUE(CreateModel(Small(true), "hf", 1, dir).ok());
  const std::string path = dir + "/model.safetensors";
  auto file = SafetensorsFile::Open(path).value();
  std::vector<TensorView> tensors = file->tensors();
  change(tensors);
  EXPECT_TRUE(WriteSafetensors(path, tensors).ok());
  const auto model = LoadWeights(dir, {.dtype = "float32"});
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(model.status().message(), HasSubstr(dir));
  EXPECT_THAT(model.status().message(), testing::Not(HasSubstr("\n")));
  return std::string(model.status().message());
}

TEST(Checkpoint, FaultyTensorsAreNamed) {
  EXPECT_THAT(LoadingFails([](auto& tensors) {
                std::erase_if(tensors, [](const TensorView& t) {
                  return t.name == "model.layers.0.mlp.up_proj.weight";
                });
              }),
              HasSubstr("model.layers.0.mlp.up_proj.weight: found no such "
                        "tensor, expected shape [48,32]"));
  EXPECT_THAT(LoadingFails([](auto& tensors) {
                for (TensorView& t : tensors)
                  if (t.name == "model.layers.0.mlp.up_proj.weight")
                    t.shape = {32, 48};
              }),
              HasSubstr("found shape [32,48], expected shape [48,32]"));
  EXPECT_THAT(LoadingFails([](auto& tensors) {
                tensors.push_back(tensors[0]);
                tensors.back().name = "model.layers.1.mlp.up_proj.weight";
              }),
              HasSubstr("model.layers.1.mlp.up_proj.weight"));
  EXPECT_THAT(LoadingFails([](auto& tensors) {
                for (TensorView& t : tensors)
                  if (t.name == "model.norm.weight") t.dtype = "I32";
              }),
              HasSubstr("model.norm.weight: found dtype I32"));
}

TEST(Checkpoint, AllFaultsAreNamedInOneError) {
  const std::string error = LoadingFails([](auto& tensors) {
    tensors[0].name = "surplus";
    for (TensorView& t : tensors)
      if (t.name == "model.norm.weight") t.shape = {1, 32};
  });
  EXPECT_THAT(error, HasSubstr("surplus: found shape"));
  EXPECT_THAT(error, HasSubstr("found no such tensor"));
  EXPECT_THAT(error, HasSubstr("model.norm.weight: found shape [1,32]"));
}

// The tensors of a good model in two shards, of which the second is changed.
class ShardsTest : public testing::Test {
 protected:
  ShardsTest() : dir_(FreshDir("shards")) {
    EXPECT_TRUE(CreateModel(Small(false), "unit", 3, dir_).ok());
    whole_ = SafetensorsFile::Open(dir_ + "/model.safetensors").value();
    for (size_t i = 0; i < whole_->tensors().size(); ++i)
      shards_[i < 5 ? 0 : 1].push_back(whole_->tensors()[i]);
    std::filesystem::remove(dir_ + "/model.safetensors");
  }
  std::string Path(int i) const {
    return dir_ + "/model-0000" + std::to_string(i + 1) +
           "-of-00002.safetensors";
  }
  void Write() {
    nlohmann::json map;
    for (const int i : {0, 1}) {
      ASSERT_TRUE(WriteSafetensors(Path(i), shards_[i]).ok());
      for (const TensorView& t : shards_[i])
        map[t.name] = std::filesystem::path(Path(i)).filename();
    }
    ASSERT_TRUE(WriteFileAtomic(dir_ + "/model.safetensors.index.json",
                                nlohmann::json{{"weight_map", map}}.dump())
                    .ok());
  }
  std::string Error() {
    return std::string(
        LoadWeights(dir_, {.dtype = "bfloat16"}).status().message());
  }

  const std::string dir_;
  std::unique_ptr<SafetensorsFile> whole_;
  std::vector<TensorView> shards_[2];
};

TEST_F(ShardsTest, AreOneModel) {
  Write();
  const ModelWeights sharded = LoadWeights(dir_, {.dtype = "float32"}).value();
  EXPECT_EQ(HashWeights(*sharded.arena).value(),
            HashWeights(*InitWeights(Small(false), "unit", 3)->arena).value());
}

TEST_F(ShardsTest, AFaultNamesTheShard) {
  TensorView& norm = shards_[1].back();
  const TensorView good = norm;
  const std::string at = Path(1) + ": " + norm.name + ": found ";
  std::vector<float> values(good.data.size() / sizeof(float), NAN);
  norm.data = absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(values.data()), good.data.size());
  Write();
  EXPECT_THAT(Error(), testing::StartsWith(at));
  EXPECT_THAT(Error(), HasSubstr("values that are NaN or infinite"));
  std::fill(values.begin(), values.end(), 3.4e38f);  // not in bfloat16
  Write();
  EXPECT_THAT(Error(), testing::StartsWith(at));
  norm = good;
  norm.dtype = "I32";
  Write();
  EXPECT_EQ(Error(), at + "dtype I32, expected F32, BF16 or F16");
  norm = good;
  Write();
  const std::string bytes = ReadFile(Path(1)).value();
  ASSERT_TRUE(WriteFileAtomic(Path(1), bytes.substr(0, bytes.size() - 9)).ok());
  EXPECT_THAT(Error(), testing::StartsWith(Path(1) + ": "));
}

TEST(Checkpoint, TruncatedFilesAreRefused) {
  const std::string dir = FreshDir("short");
  ASSERT_TRUE(CreateModel(Small(true), "hf", 1, dir).ok());
  const std::string path = dir + "/model.safetensors";
  const std::string bytes = ReadFile(path).value();
  for (const size_t size :
       {size_t{0}, size_t{7}, size_t{100}, bytes.size() - 1}) {
    ASSERT_TRUE(WriteFileAtomic(path, bytes.substr(0, size)).ok());
    EXPECT_FALSE(LoadWeights(dir, {.dtype = "float32"}).ok()) << size;
  }
}

TEST(Config, UnsupportedFeaturesAreRefusedByName) {
  const std::string good = ModelConfigJson(Small(true), "float32");
  ASSERT_TRUE(ParseModelConfig(good, "c").ok());
  const auto error = [&](const char* key, nlohmann::json value) {
    nlohmann::json json = nlohmann::json::parse(good);
    json[key] = std::move(value);
    return std::string(ParseModelConfig(json.dump(), "c").status().message());
  };
  EXPECT_THAT(error("model_type", "qwen2"), HasSubstr("c: model_type"));
  EXPECT_THAT(error("attention_bias", true), HasSubstr("attention_bias"));
  EXPECT_THAT(error("hidden_act", "gelu"), HasSubstr("hidden_act"));
  EXPECT_THAT(error("use_sliding_window", true),
              HasSubstr("use_sliding_window"));
  EXPECT_THAT(error("rope_scaling", {{"type", "yarn"}}),
              HasSubstr("rope_scaling"));
  EXPECT_THAT(error("rope_parameters", {{"rope_type", "yarn"}}),
              HasSubstr("rope_parameters.rope_type"));
  EXPECT_THAT(error("layer_types", {"sliding_attention"}),
              HasSubstr("layer_types"));
  EXPECT_THAT(error("hidden_size", -4), HasSubstr("hidden_size: found -4"));
  EXPECT_THAT(error("hidden_size", "x"), HasSubstr("hidden_size"));
  EXPECT_THAT(error("num_key_value_heads", 3), HasSubstr("divisor"));
  EXPECT_THAT(error("head_dim", 15), HasSubstr("head_dim"));
  EXPECT_FALSE(ParseModelConfig("[]", "c").ok());
  EXPECT_FALSE(ParseModelConfig("{", "c").ok());
}

TEST(Golden, LogProbsAreThoseOfTransformers) {
  const auto expected = ParseJson(
      ReadFile(std::string(kGolden) + "/expected.json").value(), kGolden);
  ASSERT_TRUE(expected.ok()) << expected.status();
  double worst = 0;
  int count = 0;
  for (const auto& row : (*expected)["rows"]) {
    ScoredSequence s;
    s.tokens = row["token_ids"].get<std::vector<int32_t>>();
    s.spans = {{1, static_cast<uint32_t>(s.tokens.size()) - 1}};
    const auto wanted = row["logprobs"].get<std::vector<float>>();
    for (const bool exact : {true, false}) {
      const auto model =
          LanguageModel::Open(kGolden, {.deterministic = exact}).value();
      const std::vector<float> got = model->Score({s}, {}).value().logprobs;
      ASSERT_EQ(got.size(), wanted.size());
      for (size_t i = 0; i < got.size(); ++i)
        worst = std::max(worst, std::abs(double{got[i]} - double{wanted[i]}));
    }
    ++count;
  }
  EXPECT_EQ(count, 3);
  EXPECT_LT(worst, 2e-5);
}

}  // namespace
}  // namespace atod::model
