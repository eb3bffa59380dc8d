#include "services/teacher/scorer.h"

#include <unistd.h>

#include <string>

#include "common/base/rng.h"
#include "common/model/language_model.h"
#include "common/model/model_files.h"
#include "common/model/weights_io.h"
#include "gtest/gtest.h"

namespace atod::teacher {
namespace {

TEST(Scorer, AnswersDoNotDependOnHowRequestsAreSplit) {
  model::ModelConfig c;
  c.vocab_size = 60;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 2;
  c.num_key_value_heads = 1;
  c.head_dim = 16;
  c.max_position_embeddings = 128;
  const std::string dir =
      testing::TempDir() + "/atod_scorer_test." + std::to_string(getpid());
  ASSERT_TRUE(model::CreateModel(c, "unit", 1, dir).ok());
  const auto m = model::LanguageModel::Open(dir, {}).value();

  Rng rng(1);
  std::vector<ScoreRequest> requests(12);
  for (ScoreRequest& r : requests) {
    for (int i = 0; i < 30; ++i)
      r.tokens.push_back(static_cast<int32_t>(rng.Below(60)));
    r.spans = {{2, 3}, {20, 10}};
  }
  const auto score = [&](int64_t budget) {
    ScorerOptions options;
    options.max_forward_tokens = budget;
    auto loaded = MakeScorer(dir, options);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->weights_hash, m->Export("float32")->root_hash);
    EXPECT_EQ(loaded->max_context, 128u);
    return loaded->scorer->Score(requests, {0.5f, true}).value();
  };
  const auto whole = score(10000), split = score(70), single = score(1);
  ASSERT_EQ(whole.size(), requests.size());
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_EQ(whole[i].logprobs.size(), 13u);
    EXPECT_EQ(whole[i].entropy.size(), 13u);
    EXPECT_EQ(whole[i].logprobs, split[i].logprobs);
    EXPECT_EQ(whole[i].logprobs, single[i].logprobs);
    EXPECT_EQ(whole[i].entropy, split[i].entropy);
  }
  EXPECT_NE(whole[0].logprobs, whole[1].logprobs);
}

TEST(Scorer, MissingModelIsAnErrorThatNamesTheFile) {
  const auto loaded = MakeScorer("/nowhere", {});
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.status().message().find("/nowhere/config.json"),
            std::string::npos);
}

}  // namespace
}  // namespace atod::teacher
