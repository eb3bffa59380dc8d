#include "services/rollout/engine_options.h"

#include <filesystem>
#include <string>

#include "common/base/file.h"
#include "common/config/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rollout/fakes.h"

namespace atod::rollout {
namespace {

using ::testing::ElementsAre;

v1::RunConfig Config(const std::string& yaml) {
  auto loaded = config::ParseRunConfig(yaml, "c.yaml");
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return loaded.ok() ? loaded->config : v1::RunConfig();
}

class EngineOptionsTest : public ::testing::Test {
 protected:
  EngineOptionsTest() {
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
    Write("config.json", R"({"eos_token_id": 7})");
    Write("generation_config.json", R"({"eos_token_id": [9, 8]})");
  }
  void Write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomic(dir_ + "/" + name, text).ok());
  }
  const std::string dir_ = ::testing::TempDir() + "engine_options_model";
  const std::unique_ptr<Tokenizer> tokenizer_ = ByteTokenizer();
};

TEST_F(EngineOptionsTest, EverythingIsAsTheConfigurationSays) {
  const auto options = EngineOptionsOf(
      Config("deterministic: false\ndevice: cuda\n"
             "model: {dtype: bfloat16, max_context: 300}\n"
             "rollout: {slots: 5}\nsampling: {train: {max_tokens: 12}}\n"
             "env: {prompt_set: compact}\n"),
      dir_, *tokenizer_);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->model.dtype, "bfloat16");
  EXPECT_EQ(options->model.device, "cuda");
  EXPECT_EQ(options->model.max_slots, 5);
  EXPECT_EQ(options->model.max_context, 300);
  EXPECT_FALSE(options->model.deterministic);
}

TEST_F(EngineOptionsTest, AllDeclaredEndTokensStop) {
  const auto options = EngineOptionsOf(Config("env: {prompt_set: compact}\n"),
                                       dir_, *tokenizer_);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_THAT(options->stop_tokens, ElementsAre(7, 8, 9));
}

TEST_F(EngineOptionsTest, AnEndTokenOutsideTheVocabularyIsRefused) {
  Write("generation_config.json", R"({"eos_token_id": 9000})");
  const auto options = EngineOptionsOf(Config("env: {prompt_set: compact}\n"),
                                       dir_, *tokenizer_);
  EXPECT_THAT(
      std::string(options.status().message()),
      testing::HasSubstr("generation_config.json: eos_token_id: found 9000"));
}

}  // namespace
}  // namespace atod::rollout
